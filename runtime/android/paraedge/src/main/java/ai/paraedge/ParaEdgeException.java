package ai.paraedge;

import java.nio.charset.StandardCharsets;

/** What the core refused: a code to act on, and a message with the value and a next step. */
public final class ParaEdgeException extends RuntimeException {
    private static final long serialVersionUID = 1;

    /** Kinds of error, in the order of {@code PE_ERROR_...} in paraedge.h, which begins at 1. */
    public enum Code {
        /** The bundle's manifest.json is malformed or contradicts itself, or a program is not what it says. */
        MANIFEST,
        /** A file of the bundle is missing, unlisted, of the wrong size or hash. */
        INTEGRITY,
        /** An engine failed to load or run a part. */
        ENGINE,
        /** The engine that the bundle needs is not there. */
        UNAVAILABLE,
        /** An argument is invalid. */
        INPUT,
        /** The request's {@link Request#cancelled} said so. */
        CANCELLED,
        /** The request would have missed its deadline, and {@link Request#dropOnOverload} was asked for. */
        DROPPED,
        /** An error of a core newer than these classes. */
        OTHER
    }

    private final Code code;

    /** Called by the native library. */
    ParaEdgeException(int code, byte[] utf8) {
        super(new String(utf8, StandardCharsets.UTF_8));
        Code[] codes = Code.values();
        this.code = code >= 1 && code < codes.length ? codes[code - 1] : Code.OTHER;
    }

    ParaEdgeException(Code code, String message) {
        super(message);
        this.code = code;
    }

    /** The kind of error. */
    public Code code() {
        return code;
    }
}
