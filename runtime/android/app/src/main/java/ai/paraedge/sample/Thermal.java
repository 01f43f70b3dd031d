package ai.paraedge.sample;

/** Android's thermal status in words. */
final class Thermal {
    private static final String[] NAMES = {"none", "light", "moderate", "severe", "critical", "emergency", "shutdown"};

    private Thermal() {}

    static String name(int status) {
        return status >= 0 && status < NAMES.length ? NAMES[status] : "unknown";
    }
}
