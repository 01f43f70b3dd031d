package android.view;

import android.content.Context;

public abstract class ViewGroup extends View {
    public ViewGroup(Context context) { super(context); }
    public native void addView(View child);
    public native void addView(View child, LayoutParams params);
    public static class LayoutParams { public static final int MATCH_PARENT = -1; }
}
