package android.graphics;

public class Paint { public native void setColor(int color); }
