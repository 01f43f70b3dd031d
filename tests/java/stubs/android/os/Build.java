package android.os;

public class Build {
    public static class VERSION { public static int SDK_INT = Integer.getInteger("stub.sdk", 35); }
    public static class VERSION_CODES { public static final int Q = 29; public static final int S = 31; }
}
