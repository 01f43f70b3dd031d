package android.graphics;

public class Color { public static final int GREEN = 0xff00ff00; public static final int GRAY = 0xff888888; }
