package ai.paraedge.sample;

import ai.paraedge.Bundle;
import ai.paraedge.ParaEdgeException;
import ai.paraedge.Prediction;
import ai.paraedge.Session;
import ai.paraedge.android.Assets;
import ai.paraedge.android.FrameAnalyzer;
import android.Manifest;
import android.os.Build;
import android.os.PowerManager;
import android.view.ViewGroup;
import android.widget.LinearLayout;
import android.widget.SeekBar;
import android.widget.TextView;
import androidx.activity.ComponentActivity;
import androidx.activity.result.contract.ActivityResultContracts;
import androidx.camera.core.CameraSelector;
import androidx.camera.core.ImageAnalysis;
import androidx.camera.core.Preview;
import androidx.camera.lifecycle.ProcessCameraProvider;
import androidx.camera.view.PreviewView;
import androidx.core.content.ContextCompat;
import com.google.common.util.concurrent.ListenableFuture;
import java.io.IOException;
import java.util.Locale;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** What the camera sees, sorted as waste, under the budget of a slider. */
public final class MainActivity extends ComponentActivity {
    private static final int MOST_MS = 200;
    /** Opens the session and runs the frames: worker threads inherit its priority. */
    private final ExecutorService executor = Executors.newSingleThreadExecutor();
    private PreviewView preview;
    private TextView text;
    private BranchBars bars;
    private Session session;
    private volatile FrameAnalyzer analyzer;
    private volatile double budgetMs = MOST_MS / 4;
    private volatile boolean isClosed;

    @Override
    protected void onCreate(android.os.Bundle state) {
        super.onCreate(state);
        preview = new PreviewView(this);
        text = new TextView(this);
        bars = new BranchBars(this);
        SeekBar slider = new SeekBar(this);
        slider.setMax(MOST_MS);
        slider.setProgress((int) budgetMs);
        slider.setOnSeekBarChangeListener(new BudgetListener());
        LinearLayout column = new LinearLayout(this);
        column.setOrientation(LinearLayout.VERTICAL);
        column.addView(preview, new LinearLayout.LayoutParams(ViewGroup.LayoutParams.MATCH_PARENT, 0, 3));
        column.addView(text);
        column.addView(bars, new LinearLayout.LayoutParams(ViewGroup.LayoutParams.MATCH_PARENT, 0, 1));
        column.addView(slider);
        setContentView(column);
        registerForActivityResult(new ActivityResultContracts.RequestPermission(), granted -> {
            if (granted) {
                executor.execute(this::open);
            } else {
                text.setText("The camera may not be used; allow it in the system's settings");
            }
        }).launch(Manifest.permission.CAMERA);
    }

    @Override
    protected void onDestroy() {
        super.onDestroy();
        isClosed = true;
        executor.execute(() -> {
            if (session != null) {
                analyzer.close();
                session.close();
            }
        });
        executor.shutdown();
    }

    /** On the executor. */
    private void open() {
        try (Bundle bundle = Assets.open(this, "waste.paraedge.zip")) {
            session = Session.open(bundle);
            analyzer = new FrameAnalyzer(this, session, budgetMs, this::show);
            ContextCompat.getMainExecutor(this).execute(this::startCamera);
        } catch (IOException | ParaEdgeException problem) {
            runOnUiThread(() -> text.setText(problem.getMessage()));
        }
    }

    private void startCamera() {
        ListenableFuture<ProcessCameraProvider> future = ProcessCameraProvider.getInstance(this);
        future.addListener(() -> {
            try {
                bind(future.get());
            } catch (ExecutionException | InterruptedException problem) {
                text.setText("The camera does not start: " + problem.getMessage());
            }
        }, ContextCompat.getMainExecutor(this));
    }

    private void bind(ProcessCameraProvider camera) {
        if (isClosed) {
            return;
        }
        ImageAnalysis frames = new ImageAnalysis.Builder()
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .build();
        frames.setAnalyzer(executor, frame -> {
            if (isClosed) {
                frame.close();
            } else {
                analyzer.analyze(frame);
            }
        });
        Preview shown = new Preview.Builder().build();
        shown.setSurfaceProvider(preview.getSurfaceProvider());
        camera.bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, shown, frames);
    }

    /** On the executor. */
    private void show(Prediction prediction) {
        String heat = Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q
                ? Thermal.name(getSystemService(PowerManager.class).getCurrentThermalStatus())
                : "unknown";
        String line = String.format(Locale.ROOT, "%s, %.0f %%\n%d of %d branches, %.1f of %.0f ms, heat: %s",
                prediction.label(), 100 * prediction.confidence(), prediction.branchesUsed(),
                prediction.branches().size(), prediction.elapsedMs(), budgetMs, heat);
        runOnUiThread(() -> {
            text.setText(line);
            bars.show(prediction, budgetMs);
        });
    }

    private final class BudgetListener implements SeekBar.OnSeekBarChangeListener {
        @Override
        public void onProgressChanged(SeekBar bar, int progress, boolean fromUser) {
            budgetMs = Math.max(1, progress);
            if (analyzer != null) {
                analyzer.setBudgetMs(budgetMs);
            }
        }

        @Override
        public void onStartTrackingTouch(SeekBar bar) {}

        @Override
        public void onStopTrackingTouch(SeekBar bar) {}
    }
}
