package ai.paraedge;

/** Engines beside the one that comes with this library, ExecuTorch, which needs no call. */
public final class Engines {
    private Engines() {}

    /**
     * Registers the engine of a shared library that exports {@code pe_engine_entry} (see paraedge.h).
     *
     * @throws ParaEdgeException UNAVAILABLE: it cannot be loaded, or is none
     */
    public static void load(String library) {
        Native.loadEngine(Native.utf8(library, "library"));
    }

    /**
     * Registers ONNX Runtime from its shared library, such as {@code libonnxruntime.so}.
     *
     * @throws ParaEdgeException UNAVAILABLE: it cannot be loaded, or is too old
     */
    public static void loadOnnxRuntime(String library) {
        Native.loadOnnxRuntime(Native.utf8(library, "library"));
    }
}
