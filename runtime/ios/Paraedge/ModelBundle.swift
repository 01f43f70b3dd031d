// An exported model, and what the core refuses.
import CParaedge
import Foundation

/// What the core refused: a kind to act on, and a message with the value and a next step.
public struct ParaedgeError: Error, CustomStringConvertible, Sendable {
    public enum Kind: Int32, Sendable {
        case manifest = 1, integrity, engine, unavailable, input, cancelled, dropped
        case other = 0
    }

    public let kind: Kind
    public let description: String

    init(taking error: OpaquePointer?) {
        kind = Kind(rawValue: pe_error_code(error)) ?? .other
        description = pe_error_message(error).map { String(cString: $0) } ?? ""
        pe_error_free(error)
    }
}

/// A folder or one stored zip, every file of it checked when it is opened. Immutable, and shared by any number of sessions.
public final class ModelBundle: @unchecked Sendable {
    let handle: OpaquePointer

    /// - Parameter trustedKeys: only what one of these keys signed; `nil`: any bundle. Each is a public key of 56 letters.
    /// - Throws: ``ParaedgeError``: manifest or integrity.
    public init(url: URL, trustedKeys: [String]? = nil) throws {
        var error: OpaquePointer?
        let opened: OpaquePointer?
        if let trustedKeys {
            let keys = trustedKeys.map { strdup($0) }
            defer { keys.forEach { free($0) } }
            opened = pe_bundle_open_signed(url.path, keys.map { UnsafePointer($0) }, keys.count, &error)
        } else {
            opened = pe_bundle_open(url.path, &error)
        }
        guard let opened else { throw ParaedgeError(taking: error) }
        handle = opened
    }

    deinit { pe_bundle_free(handle) }

    /// Names of the classes; empty: the output is a vector.
    public var labels: [String] {
        (0..<pe_bundle_num_labels(handle)).map { String(cString: pe_bundle_label(handle, $0)) }
    }

    /// (1, C, H, W) for images.
    public var inputShape: [Int] {
        var shape: UnsafePointer<Int64>?
        let rank = pe_bundle_input_shape(handle, &shape)
        return (0..<rank).map { Int(shape![$0]) }
    }

    /// Whether the model was trained on the largest middle part of its own proportions, not on whole images.
    public var cropsImages: Bool { pe_bundle_input_resize(handle) == Int32(PE_RESIZE_CROP) }
}
