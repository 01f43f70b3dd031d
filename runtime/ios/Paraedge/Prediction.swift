// What a request found.
import CParaedge

/// The sum of the branches that count, and what became of each.
public struct Prediction: Sendable {
    public enum State: Int32, Sendable {
        case used, failed, notFinite, wouldNotFit, late, notNeeded
    }

    /// One branch in one request; times are milliseconds since it began.
    public struct BranchRun: Sendable {
        public let index: Int
        public let state: State
        public let startMs: Float
        public let endMs: Float
        public let problem: String
    }

    /// Logits of classes, or a vector.
    public let output: [Float]
    public let labelIndex: Int
    /// `nil` for a vector.
    public let label: String?
    public let confidence: Float
    public let elapsedMs: Float
    public let deadlineMet: Bool
    public let branches: [BranchRun]

    init(_ prediction: OpaquePointer, labels: [String]) {
        var count = 0
        let values = pe_prediction_output(prediction, &count)
        output = Array(UnsafeBufferPointer(start: values, count: count))
        labelIndex = pe_prediction_label_index(prediction)
        label = labels.isEmpty ? nil : labels[labelIndex]
        confidence = pe_prediction_confidence(prediction)
        elapsedMs = pe_prediction_elapsed_ms(prediction)
        deadlineMet = pe_prediction_deadline_met(prediction) != 0
        branches = (0..<pe_prediction_num_branches(prediction)).map { position in
            var run = pe_branch_run()
            run.size = MemoryLayout<pe_branch_run>.size
            _ = pe_prediction_branch(prediction, position, &run)
            return BranchRun(
                index: Int(run.index), state: State(rawValue: run.state)!, startMs: run.start_ms, endMs: run.end_ms,
                problem: run.problem.map { String(cString: $0) } ?? "")
        }
    }
}
