package ai.paraedge;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.net.URLConnection;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.List;
import java.util.regex.Pattern;

/** Bundles that come with an application, or later over the net, as files. A file is there whole or not at all. */
public final class BundleFiles {
    private static final long MAX_BYTES = 1L << 30;
    private static final int CONNECT_MS = 10_000;
    private static final int READ_MS = 30_000;
    private static final long MAX_DOWNLOAD_NANOS = 15 * 60 * 1_000_000_000L;

    private BundleFiles() {}

    /** What can be read more than once, such as an asset. */
    public interface Source {
        /** From its beginning; the caller closes it. */
        InputStream open() throws IOException;
    }

    /**
     * A zipped bundle that an application ships, as a file: copied when there is none of this content. Copies of the
     * same name and other content, those of older versions of the application, are deleted.
     *
     * @param folder of the application's own; it is made if need be
     * @param name of its files, without a folder
     */
    public static File copied(Source source, File folder, String name) throws IOException {
        if (name.isEmpty() || name.indexOf('/') >= 0) {
            throw new IllegalArgumentException("'" + name + "' is not a file name");
        }
        String hash = copy(source.open(), null, Long.MAX_VALUE);
        File copy = new File(folder, name + "-" + hash);
        if (!copy.isFile()) {
            replace(copy, part -> {
                if (!copy(source.open(), part, Long.MAX_VALUE).equals(hash)) {
                    throw new IOException(name + " changed while it was copied");
                }
            });
        }
        Pattern copies = Pattern.compile(Pattern.quote(name) + "-[0-9a-f]{64}");
        File[] older = folder.listFiles(
                file -> copies.matcher(file.getName()).matches() && !file.getName().equals(copy.getName()));
        for (File file : older == null ? new File[0] : older) {
            file.delete();
        }
        return copy;
    }

    /**
     * Downloads a zipped bundle to {@code target}, if one of the keys signed it and it is no older version than the one
     * that is there. Takes at most 15 minutes and 1 GiB.
     *
     * @param target in a folder that is made if need be
     * @throws ParaEdgeException as {@link Bundle#open(String, List)}; INPUT: its version is lower than that of the one there
     * @throws IOException the net or the disk failed, or a limit was reached
     */
    public static void download(URL url, File target, List<String> trustedKeys) throws IOException {
        URLConnection connection = url.openConnection();
        connection.setConnectTimeout(CONNECT_MS);
        connection.setReadTimeout(READ_MS);
        long end = System.nanoTime() + MAX_DOWNLOAD_NANOS;
        replace(target, part -> {
            copy(connection.getInputStream(), part, end);
            try (Bundle bundle = Bundle.open(part.getPath(), trustedKeys)) {
                refuseOlder(url, bundle.version(), target, trustedKeys);
            }
        });
    }

    private static void refuseOlder(URL url, long version, File target, List<String> trustedKeys) {
        if (!target.exists()) {
            return;
        }
        try (Bundle there = Bundle.open(target.getPath(), trustedKeys)) {
            if (version < there.version()) {
                throw new ParaEdgeException(ParaEdgeException.Code.INPUT, url + " goes back from version "
                        + there.version() + " to " + version + "; if that is what you want, delete " + target + " first");
            }
        } catch (ParaEdgeException problem) {
            if (problem.code() == ParaEdgeException.Code.INPUT) {
                throw problem;
            } // what is there cannot be opened any more: anything signed is better
        }
    }

    private interface Writer {
        void write(File part) throws IOException;
    }

    private static void replace(File target, Writer writer) throws IOException {
        File folder = target.getAbsoluteFile().getParentFile();
        if (!folder.isDirectory()) { // a link to one is, but not to createDirectories
            Files.createDirectories(folder.toPath());
        }
        deleteAbandoned(folder);
        File part = File.createTempFile(".paraedge-", ".part", folder);
        try {
            writer.write(part);
            Files.move(part.toPath(), target.toPath(), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            part.delete();
        }
    }

    /** Parts of processes that ended while they wrote: nobody who still writes has paused for longer than a download may take. */
    private static void deleteAbandoned(File folder) {
        long oldest = System.currentTimeMillis() - MAX_DOWNLOAD_NANOS / 1_000_000;
        File[] parts = folder.listFiles(file -> file.getName().matches("\\.paraedge-[0-9]+\\.part")
                && file.lastModified() < oldest);
        for (File part : parts == null ? new File[0] : parts) {
            part.delete();
        }
    }

    /** Reads all and closes it; writes it to {@code file} unless that is null; its SHA-256. */
    private static String copy(InputStream source, File file, long endNanos) throws IOException {
        MessageDigest digest = sha256();
        byte[] piece = new byte[1 << 16];
        long total = 0;
        try (InputStream in = source; FileOutputStream out = file == null ? null : new FileOutputStream(file)) {
            for (int count = in.read(piece); count >= 0; count = in.read(piece)) {
                total += count;
                if (total > MAX_BYTES || (endNanos != Long.MAX_VALUE && System.nanoTime() - endNanos > 0)) {
                    throw new IOException("given up after " + total + " bytes: at most " + MAX_BYTES + " bytes and "
                            + MAX_DOWNLOAD_NANOS / 60_000_000_000L + " minutes are taken");
                }
                digest.update(piece, 0, count);
                if (out != null) {
                    out.write(piece, 0, count);
                }
            }
            if (out != null) {
                out.getFD().sync();
            }
        }
        StringBuilder hex = new StringBuilder();
        for (byte value : digest.digest()) {
            hex.append(String.format("%02x", value));
        }
        return hex.toString();
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException problem) {
            throw new AssertionError(problem); // every Java and every Android has it
        }
    }
}
