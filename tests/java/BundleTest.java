import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import ai.paraedge.Bundle;
import ai.paraedge.Engines;
import ai.paraedge.ParaEdgeException.Code;
import ai.paraedge.Session;
import ai.paraedge.SessionOptions;
import java.util.Arrays;
import java.util.Collections;
import org.junit.Test;

/** What a bundle says of itself, and what is refused when it is opened. */
public class BundleTest {
    @Test
    public void aFolderAndItsZipSayTheSame() {
        for (String name : new String[] {"images.paraedge", "images.zip"}) {
            try (Bundle bundle = Prepared.bundle(name)) {
                assertEquals("fashion-mnist", bundle.name());
                assertEquals("executorch", bundle.engine());
                assertEquals(1, bundle.version());
                assertEquals(Bundle.InputKind.IMAGE, bundle.inputKind());
                assertArrayEquals(new long[] {1, 1, 28, 28}, bundle.inputShape());
                assertEquals(784, bundle.inputSize());
                assertEquals(10, bundle.numOutputs());
                assertEquals("Sneaker", bundle.labels().get(7));
                assertEquals(Integer.valueOf(0), bundle.branches().get(0));
                assertTrue(bundle.hasEarlyStop());
            }
        }
    }

    @Test
    public void aBundleOfTensorsAndVectorsHasNoLabels() {
        try (Bundle bundle = Prepared.bundle("tensors.paraedge")) {
            assertEquals(Bundle.InputKind.TENSOR, bundle.inputKind());
            assertEquals(Collections.emptyList(), bundle.labels());
            assertEquals(10, bundle.numOutputs());
            assertFalse(bundle.hasEarlyStop());
        }
    }

    @Test
    public void whatItSaysCannotBeChanged() {
        try (Bundle bundle = Prepared.bundle("images.paraedge")) {
            bundle.inputShape()[0] = 9;
            assertEquals(1, bundle.inputShape()[0]);
            assertThrows(UnsupportedOperationException.class, () -> bundle.labels().set(0, "Boot"));
            assertThrows(UnsupportedOperationException.class, () -> bundle.branches().clear());
        }
    }

    @Test
    public void pathsAreUnicode() {
        try (Bundle bundle = Prepared.bundle("m\u00f6del \ud83d\ude00.paraedge")) {
            assertEquals("fake", bundle.name());
            assertEquals(Arrays.asList("ant", "b\u00fc\ud83d\ude00", "cat"), bundle.labels());
        }
        Prepared.refused(Code.INTEGRITY, "n\u00f6 \ud83d\ude00", () -> Prepared.bundle("n\u00f6 \ud83d\ude00"));
    }

    @Test
    public void whatIsNoBundleIsRefused() {
        Prepared.refused(Code.INTEGRITY, "nowhere does not exist", () -> Prepared.bundle("nowhere"));
        Prepared.refused(Code.INTEGRITY, "branch_00", () -> Prepared.bundle("damaged.paraedge"));
        Prepared.refused(Code.MANIFEST, "manifest.json", () -> Prepared.bundle("malformed.paraedge"));
        assertEquals("path", assertThrows(NullPointerException.class, () -> Bundle.open(null)).getMessage());
        assertThrows(IllegalArgumentException.class, () -> Prepared.bundle("images.paraedge\0"));
    }

    @Test
    public void onlyWhatATrustedKeySignedIsOpened() {
        String folder = Prepared.path("keys"), file = Prepared.path("keys/release.pub");
        for (String key : new String[] {folder, file, Prepared.text("keys/release.pub").split("\n")[1]}) {
            Bundle.open(Prepared.path("signed.paraedge"), Arrays.asList(key)).close();
            Prepared.refused(Code.INTEGRITY, "is not signed", () -> signed("held.paraedge", key));
        }
        String stranger = Prepared.path("stranger.pub");
        Bundle.open(Prepared.path("signed.paraedge"), Arrays.asList(stranger, file)).close();
        Prepared.refused(Code.INTEGRITY, "not among the trusted keys", () -> signed("signed.paraedge", stranger));
        Prepared.refused(Code.INTEGRITY, "does not match manifest.json", () -> signed("changed.paraedge", file));
        Prepared.refused(Code.INPUT, "no-such.pub", () -> signed("signed.paraedge", "/no-such.pub"));
        Prepared.refused(Code.INPUT, "no trusted key", () -> Bundle.open(file, Collections.emptyList()));
        assertThrows(NullPointerException.class, () -> signed("signed.paraedge", null));
        assertThrows(NullPointerException.class, () -> Bundle.open(file, null));
        assertThrows(IllegalArgumentException.class, () -> signed("signed.paraedge", file + "\0"));
    }

    private static Bundle signed(String name, String key) {
        return Bundle.open(Prepared.path(name), Arrays.asList(key));
    }

    @Test
    public void anEngineThatIsNotThereIsNamed() {
        try (Bundle bundle = Prepared.bundle("other-engine.paraedge")) {
            Prepared.refused(Code.UNAVAILABLE, "litert', which is not registered (there: executorch", () -> Session.open(bundle));
        }
        Prepared.refused(Code.UNAVAILABLE, "nothing.so", () -> { Engines.load("/nothing.so"); return null; });
        Prepared.refused(Code.UNAVAILABLE, "nothing.so", () -> { Engines.loadOnnxRuntime("/nothing.so"); return null; });
    }

    @Test
    public void aClosedBundleOpensNoSession() {
        Bundle bundle = Prepared.bundle("images.paraedge");
        try (Session session = Session.open(bundle)) {
            bundle.close();
            bundle.close();
            assertEquals("fashion-mnist", session.bundle().name());
            assertEquals(bundle.branches().size(), session.run(new byte[784]).branchesUsed());
            assertThrows(IllegalStateException.class, () -> Session.open(bundle));
        }
    }

    @Test
    public void optionsOutOfRangeAreRefusedWithTheirValue() {
        try (Bundle bundle = Prepared.bundle("images.paraedge")) {
            SessionOptions usual = SessionOptions.DEFAULT;
            Prepared.refused(Code.INPUT, "-1", () -> Session.open(bundle, usual.threads(-1)));
            Prepared.refused(Code.INPUT, "99", () -> Session.open(bundle, usual.firstBranches(99)));
            Prepared.refused(Code.INPUT, "latency holds -2", () -> Session.open(bundle, usual.partMs(1, -2)));
            Prepared.refused(Code.INPUT, "latency holds nan", () -> Session.open(bundle, usual.contention(Double.NaN)));
        }
    }

    @Test
    public void optionsAreFollowed() {
        SessionOptions options = SessionOptions.DEFAULT.firstBranches(2).threads(2).spinUs(0)
                .placement(SessionOptions.Placement.NONE).partMs(1, 2, 3).contention(1, 1.25);
        try (Bundle bundle = Prepared.bundle("images.paraedge"); Session session = Session.open(bundle, options)) {
            assertEquals(2, session.numBranches());
            assertEquals(2, session.threads());
            assertTrue(session.mandatoryMs() >= 3);
            assertEquals(2, session.run(new byte[784]).branchesUsed());
        }
    }
}
