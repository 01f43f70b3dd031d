package android.graphics;

public abstract class Bitmap {
    public enum Config { ALPHA_8, RGB_565, ARGB_4444, ARGB_8888, RGBA_F16, HARDWARE }
    public abstract Config getConfig();
    public abstract Bitmap copy(Config config, boolean isMutable);
    public abstract int getWidth();
    public abstract int getHeight();
    public abstract void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height);
}
