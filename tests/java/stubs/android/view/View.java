package android.view;

import android.content.Context;
import android.graphics.Canvas;

public class View {
    public View(Context context) {}
    public native int getWidth();
    public native int getHeight();
    public native void invalidate();
    protected void onDraw(Canvas canvas) {}
}
