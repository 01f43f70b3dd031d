package ai.paraedge;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;

/** The threads of this process that run branches, for systems that schedule threads by what they are told of them. */
public final class WorkerThreads {
    private WorkerThreads() {}

    /** Linux's ids of the worker threads of all open sessions, ascending; a session's caller is none of them. */
    public static int[] ids() {
        File[] tasks = new File("/proc/self/task").listFiles();
        return Arrays.stream(tasks == null ? new File[0] : tasks)
                .filter(task -> name(task).startsWith("paraedge-"))
                .mapToInt(task -> Integer.parseInt(task.getName()))
                .sorted()
                .toArray();
    }

    private static String name(File task) {
        try {
            return new String(Files.readAllBytes(new File(task, "comm").toPath()), StandardCharsets.UTF_8);
        } catch (IOException ended) {
            return "";
        }
    }
}
