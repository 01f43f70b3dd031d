import ai.paraedge.BranchRun;
import ai.paraedge.Bundle;
import ai.paraedge.Prediction;
import ai.paraedge.Request;
import ai.paraedge.Session;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;

/** A bundle, an image, a budget: the label, and what became of each branch. */
public final class Classify {
    private Classify() {}

    /** {@code java -cp paraedge.jar Classify.java BUNDLE IMAGE.u8 BUDGET_MS}; the image is uint8 (H, W, C). */
    public static void main(String[] arguments) throws IOException {
        byte[] image = Files.readAllBytes(Paths.get(arguments[1]));
        Request request = Request.budgetMs(Double.parseDouble(arguments[2]))
                .onPrediction(soFar -> {
                    System.out.println("so far " + shown(soFar.label()));
                    return true;
                });
        try (Bundle bundle = Bundle.open(arguments[0]); Session session = Session.open(bundle)) {
            Prediction prediction = session.run(image, request);
            System.out.printf("%s, %.0f %%%n", shown(prediction.label()), prediction.confidence() * 100);
            for (BranchRun branch : prediction.branches()) {
                System.out.println(shown(branch.toString()));
            }
        }
    }

    /** Text from outside, a label or a reason: what a terminal would obey, or nobody sees, becomes a question mark. */
    private static String shown(String text) {
        return text.replaceAll("[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]", "?");
    }
}
