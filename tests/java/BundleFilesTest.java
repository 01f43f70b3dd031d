import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import ai.paraedge.Bundle;
import ai.paraedge.BundleFiles;
import ai.paraedge.ParaEdgeException.Code;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Collections;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;

/** Bundles that come with an application or over the net. */
public class BundleFilesTest {
    private File folder;
    private String key;

    @Before
    public void makeFolder() throws IOException {
        folder = Files.createTempDirectory("files-").toFile();
        key = new String(Prepared.bytes("public-key"), StandardCharsets.UTF_8);
    }

    @After
    public void deleteFolder() {
        for (File file : folder.listFiles()) {
            file.delete();
        }
        assertTrue(folder.delete());
    }

    private File copied(byte[] content) throws IOException {
        return BundleFiles.copied(() -> new ByteArrayInputStream(content), folder, "model.zip");
    }

    @Test
    public void aBundleIsCopiedOnceAndReplacesTheOneOfAnOlderApplication() throws IOException {
        byte[] zip = Prepared.bytes("images.zip");
        File older = copied(new byte[] {1, 2, 3});
        File other = new File(folder, "model.zip-not-a-hash");
        assertTrue(other.createNewFile());
        File abandoned = new File(folder, ".paraedge-1.part");
        assertTrue(abandoned.createNewFile() && abandoned.setLastModified(1_000_000));
        File copy = copied(zip);
        assertArrayEquals(zip, Files.readAllBytes(copy.toPath()));
        assertFalse(older.exists());
        assertTrue(other.exists());
        assertTrue(copy.setLastModified(1_000_000));
        assertEquals(copy, copied(zip));
        assertEquals(1_000_000, copy.lastModified());
        Bundle.open(copy.getPath()).close();
        assertEquals(2, folder.list().length);
    }

    @Test
    public void whatCannotBeCopiedLeavesNothing() throws IOException {
        int[] opened = {0};
        assertThrows(IOException.class, () -> BundleFiles.copied(
                () -> new ByteArrayInputStream(new byte[] {(byte) opened[0]++}), folder, "model.zip"));
        assertEquals(0, folder.list().length);
        assertThrows(IllegalArgumentException.class, () -> BundleFiles.copied(null, folder, "../model.zip"));
    }

    @Test
    public void aDownloadIsKeptIfATrustedKeySignedItAndItIsNotOlder() throws IOException {
        File target = new File(folder, "model.zip");
        File being = new File(folder, ".paraedge-2.part"); // another process writes it
        assertTrue(being.createNewFile());
        download(target, "version-1.zip");
        assertEquals(1, version(target));
        download(target, "version-2.zip");
        assertEquals(2, version(target));
        refused(Code.INPUT, "goes back from version 2 to 1", target, "version-1.zip");
        refused(Code.INTEGRITY, "", target, "version-3.zip"); // of another key
        refused(Code.INTEGRITY, "", target, "images.zip"); // not signed
        assertThrows(IOException.class, () -> download(target, "nowhere.zip"));
        assertEquals(2, version(target));
        assertTrue(being.delete());
        assertEquals(1, folder.list().length);

        Files.write(target.toPath(), new byte[] {1, 2, 3});
        download(target, "version-1.zip");
        assertEquals(1, version(target));
    }

    @Test
    public void aDownloadMakesItsFolder() throws IOException {
        File made = new File(folder, "made");
        File target = new File(made, "model.zip");
        download(target, "version-1.zip");
        assertEquals(1, version(target));
        assertTrue(target.delete() && made.delete());
    }

    private long version(File target) {
        try (Bundle bundle = Bundle.open(target.getPath(), Collections.singletonList(key))) {
            return bundle.version();
        }
    }

    private void download(File target, String name) throws IOException {
        BundleFiles.download(new URL("file:" + Prepared.path(name)), target, Collections.singletonList(key));
    }

    private void refused(Code code, String says, File target, String name) {
        Prepared.refused(code, says, () -> {
            try {
                download(target, name);
            } catch (IOException problem) {
                throw new AssertionError(problem);
            }
            return null;
        });
    }
}
