package ai.paraedge.android;

import ai.paraedge.Bundle;
import ai.paraedge.BundleFiles;
import android.content.Context;
import java.io.File;
import java.io.IOException;

/** Bundles among an application's assets. */
public final class Assets {
    private Assets() {}

    /**
     * Opens a zipped bundle. It is copied into the application's own storage first, if this version of it is not there.
     *
     * @param name of the asset, without a folder
     * @throws IOException there is no such asset, or no room for a copy
     * @throws ai.paraedge.ParaEdgeException as {@link Bundle#open}
     */
    public static Bundle open(Context context, String name) throws IOException {
        File folder = new File(context.getNoBackupFilesDir(), "paraedge");
        return Bundle.open(BundleFiles.copied(() -> context.getAssets().open(name), folder, name).getPath());
    }
}
