package androidx.activity;

import android.content.Context;
import android.os.Bundle;
import android.view.View;
import androidx.activity.result.ActivityResultCallback;
import androidx.activity.result.ActivityResultLauncher;
import androidx.activity.result.contract.ActivityResultContract;
import androidx.lifecycle.LifecycleOwner;

public abstract class ComponentActivity extends Context implements LifecycleOwner {
    @Override
    public native android.content.res.AssetManager getAssets();
    @Override
    public native java.io.File getNoBackupFilesDir();
    @Override
    public native <T> T getSystemService(Class<T> service);
    protected void onCreate(Bundle state) {}
    protected void onDestroy() {}
    public native void setContentView(View view);
    public final native void runOnUiThread(Runnable action);
    public final native <I, O> ActivityResultLauncher<I> registerForActivityResult(
            ActivityResultContract<I, O> contract, ActivityResultCallback<O> callback);
}
