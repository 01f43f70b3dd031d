package androidx.camera.view;

import android.content.Context;
import android.view.ViewGroup;
import androidx.camera.core.Preview;

public final class PreviewView extends ViewGroup {
    public PreviewView(Context context) { super(context); }
    public native Preview.SurfaceProvider getSurfaceProvider();
}
