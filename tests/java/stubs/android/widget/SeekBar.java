package android.widget;

import android.content.Context;
import android.view.View;

public class SeekBar extends View {
    public SeekBar(Context context) { super(context); }
    public native void setMax(int max);
    public native void setProgress(int progress);
    public native void setOnSeekBarChangeListener(OnSeekBarChangeListener listener);
    public interface OnSeekBarChangeListener {
        void onProgressChanged(SeekBar bar, int progress, boolean fromUser);
        void onStartTrackingTouch(SeekBar bar);
        void onStopTrackingTouch(SeekBar bar);
    }
}
