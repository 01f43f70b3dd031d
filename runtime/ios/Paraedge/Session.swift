// A bundle loaded into ExecuTorch, and the threads that run it.
import CParaedge
import Foundation

/// Requests run one after another, on a queue of the session's own. Opening prepares every branch: do it away from the
/// main actor.
public final class Session: @unchecked Sendable {
    private let handle: OpaquePointer
    private let labels: [String]
    private let queue = DispatchQueue(label: "paraedge", qos: .userInteractive)

    private static let registered: Bool = pe_engine_register(pe_engine_entry(Int32(PE_API_VERSION)), nil) == 0

    /// - Parameter threads: that run branches, the caller's included; 0: one per branch, up to the cores there are.
    /// - Throws: ``ParaedgeError``: the engine refused a part, or an argument is invalid.
    public init(_ bundle: ModelBundle, threads: Int = 0) throws {
        _ = Session.registered  // were it not, opening would say that there is no such engine
        var options = pe_session_options()
        pe_session_options_init(&options, MemoryLayout<pe_session_options>.size)
        options.threads = Int32(threads)
        var error: OpaquePointer?
        guard let opened = pe_session_open(bundle.handle, &options, &error) else { throw ParaedgeError(taking: error) }
        handle = opened
        labels = bundle.labels
    }

    deinit { pe_session_free(handle) }

    /// The best finished sum when the budget has gone by since the call, waiting for other requests included.
    ///
    /// - Parameters:
    ///   - image: uint8 (H, W, C) of the size that the bundle reads.
    ///   - budget: `nil`: every branch, however long it takes.
    /// - Throws: ``ParaedgeError``; `CancellationError`: the task was cancelled while the request waited.
    public func predict(_ image: Data, budget: Duration? = nil) async throws -> Prediction {
        var last: Prediction?
        for try await prediction in predictions(image, budget: budget) { last = prediction }
        guard let last, !Task.isCancelled else { throw CancellationError() }
        return last
    }

    /// Every better prediction on the way, the last one last. Whoever stops reading cancels the request.
    public func predictions(_ image: Data, budget: Duration? = nil) -> AsyncThrowingStream<Prediction, Error> {
        let deadline = budget.map { pe_now_ns() + Session.nanoseconds($0) } ?? Int64.max
        return AsyncThrowingStream { continuation in
            let request = Request(continuation, labels: labels)
            continuation.onTermination = { _ in request.cancel() }
            queue.async { request.finish(with: Result { try self.run(image, deadline, request) }) }
        }
    }

    private func run(_ image: Data, _ deadline: Int64, _ request: Request) throws -> Prediction {
        var options = pe_run_options()
        pe_run_options_init(&options, MemoryLayout<pe_run_options>.size)
        options.deadline_ns = deadline
        options.context = Unmanaged.passUnretained(request).toOpaque()  // this call outlives every use of it
        options.on_prediction = { soFar, context in Request.of(context).improve(soFar!) ? 1 : 0 }
        options.cancelled = { context in Request.of(context).isCancelled ? 1 : 0 }
        var error: OpaquePointer?
        let found = image.withUnsafeBytes { bytes in
            pe_session_run_image(handle, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count, &options, &error)
        }
        guard let found else { throw ParaedgeError(taking: error) }
        defer { pe_prediction_free(found) }
        return Prediction(found, labels: labels)
    }

    private static func nanoseconds(_ duration: Duration) -> Int64 {
        let (seconds, attoseconds) = duration.components
        return min(max(seconds, 0), 1_000_000_000) * 1_000_000_000 + max(attoseconds, 0) / 1_000_000_000
    }
}

/// What a running request shares with whoever reads its stream.
private final class Request: @unchecked Sendable {
    private let continuation: AsyncThrowingStream<Prediction, Error>.Continuation
    private let labels: [String]
    private let lock = NSLock()
    private var cancelled = false

    init(_ continuation: AsyncThrowingStream<Prediction, Error>.Continuation, labels: [String]) {
        self.continuation = continuation
        self.labels = labels
    }

    static func of(_ context: UnsafeMutableRawPointer?) -> Request {
        Unmanaged<Request>.fromOpaque(context!).takeUnretainedValue()
    }

    var isCancelled: Bool { lock.withLock { cancelled } }

    func cancel() { lock.withLock { cancelled = true } }

    func improve(_ soFar: OpaquePointer) -> Bool {
        continuation.yield(Prediction(soFar, labels: labels))
        return !isCancelled
    }

    func finish(with result: Result<Prediction, Error>) {
        switch result {
        case .success(let prediction):
            continuation.yield(prediction)
            continuation.finish()
        case .failure(let error): continuation.finish(throwing: error)
        }
    }
}
