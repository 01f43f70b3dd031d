package android.os;

public abstract class PerformanceHintManager {
    public abstract Session createHintSession(int[] tids, long initialTargetWorkDurationNanos);
    public interface Session extends java.io.Closeable {
        void updateTargetWorkDuration(long targetDurationNanos);
        void reportActualWorkDuration(long actualDurationNanos);
        @Override
        void close();
    }
}
