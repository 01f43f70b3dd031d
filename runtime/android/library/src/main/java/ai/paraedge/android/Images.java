package ai.paraedge.android;

import ai.paraedge.Pixels;
import android.graphics.Bitmap;
import android.graphics.PixelFormat;
import android.graphics.Rect;
import androidx.camera.core.ImageProxy;

/** Android's images as {@link Pixels}, which scale to what a bundle reads. */
public final class Images {
    private Images() {}

    /** A bitmap, as it is: nothing turns it as an EXIF entry of its file would. */
    public static Pixels of(Bitmap bitmap) {
        if (bitmap.getConfig() == Bitmap.Config.HARDWARE) { // its pixels cannot be read
            return of(bitmap.copy(Bitmap.Config.ARGB_8888, false));
        }
        int width = bitmap.getWidth();
        int height = bitmap.getHeight();
        int[] argb = new int[width * height];
        bitmap.getPixels(argb, 0, width, 0, 0, width, height);
        return Pixels.ofArgb(argb, width, height);
    }

    /**
     * A frame of the camera, upright, cut to its crop rectangle. The pixels are copied: the frame can be closed.
     *
     * @throws IllegalArgumentException it is not RGBA, which {@code ImageAnalysis.Builder.setOutputImageFormat} sets
     */
    public static Pixels of(ImageProxy frame) {
        if (frame.getFormat() != PixelFormat.RGBA_8888) {
            throw new IllegalArgumentException("a frame of format " + frame.getFormat()
                    + "; use setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)");
        }
        ImageProxy.PlaneProxy plane = frame.getPlanes()[0];
        Rect crop = frame.getCropRect();
        return Pixels.ofRgba(plane.getBuffer(), plane.getRowStride(), crop.left, crop.top, crop.width(), crop.height())
                .turned(frame.getImageInfo().getRotationDegrees());
    }
}
