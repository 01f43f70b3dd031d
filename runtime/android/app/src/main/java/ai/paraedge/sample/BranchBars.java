package ai.paraedge.sample;

import ai.paraedge.BranchRun;
import ai.paraedge.Prediction;
import android.content.Context;
import android.graphics.Canvas;
import android.graphics.Color;
import android.graphics.Paint;
import android.view.View;

/** A bar for every branch: when it ran within the budget, green if it counts. Those that did not run have none. */
final class BranchBars extends View {
    private final Paint paint = new Paint();
    private Prediction prediction;
    private double budgetMs = 1;

    BranchBars(Context context) {
        super(context);
    }

    void show(Prediction shown, double ofBudgetMs) {
        prediction = shown;
        budgetMs = ofBudgetMs;
        invalidate();
    }

    @Override
    protected void onDraw(Canvas canvas) {
        if (prediction == null) {
            return;
        }
        float row = (float) getHeight() / prediction.branches().size();
        float perMs = (float) (getWidth() / Math.max(budgetMs, prediction.elapsedMs()));
        float top = 0;
        for (BranchRun branch : prediction.branches()) {
            if (branch.thread() >= 0) {
                float end = branch.endMs() > 0 ? branch.endMs() : prediction.elapsedMs(); // it is still running
                paint.setColor(branch.state() == BranchRun.State.USED ? Color.GREEN : Color.GRAY);
                canvas.drawRect(branch.startMs() * perMs, top + 0.1f * row, end * perMs, top + 0.9f * row, paint);
            }
            top += row;
        }
    }
}
