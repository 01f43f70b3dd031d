import ai.paraedge.Engines
import ai.paraedge.ParaEdgeException
import ai.paraedge.Request
import ai.paraedge.Session
import ai.paraedge.predict
import ai.paraedge.predictLatest
import ai.paraedge.predictions
import java.io.File
import java.nio.ByteBuffer
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.consumeAsFlow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking

private val waiting = Request.budgetMs(600_000.0).startAll()
private val image: ByteBuffer = ByteBuffer.allocateDirect(64)

private fun used(values: List<ai.paraedge.Prediction>) = values.map { it.branchesUsed() }

/** What Kotlin adds, with the engine of RequestTest: branches add 1, 2 and, when the gate is open, 4. */
fun main() {
    val gate = File(System.getenv("PARAEDGE_TEST_GATE"))
    Engines.load(Prepared.path("libfake_engine.so"))
    Prepared.session("held.paraedge", 3).use { session: Session ->
        runBlocking {
            // A flow of better predictions; collecting no further ends the request.
            val two = session.predictions(image, waiting).first { it.branchesUsed() == 2 }
            check(two.output().toList() == listOf(3f, 6f, 9f))

            // Cancelling a request that waits.
            val begun = CompletableDeferred<Unit>()
            val request = async(Dispatchers.Default) {
                begun.complete(Unit)
                session.predict(image, waiting)
            }
            begun.await()
            request.cancel()
            check(runCatching { request.await() }.exceptionOrNull() is CancellationException)

            gate.createNewFile()
            check(session.predict(image).output().toList() == listOf(7f, 14f, 21f))
            val seen = used(session.predictions(image).toList())
            check(seen.last() == 3 && seen == seen.sorted()) { seen }

            // What run refuses, refuses here.
            val refused = runCatching { session.predict(ByteBuffer.allocateDirect(3)) }.exceptionOrNull()
            check((refused as ParaEdgeException).code() == ParaEdgeException.Code.INPUT)
            val inFlow = runCatching { session.predictions(ByteBuffer.allocateDirect(3)).toList() }.exceptionOrNull()
            check((inFlow as ParaEdgeException).code() == ParaEdgeException.Code.INPUT)

            // A camera: 100 frames are there before the first is looked at, and only the newest counts after it.
            val frames = Channel<ByteBuffer>(Channel.UNLIMITED)
            repeat(100) { frames.send(image) }
            frames.close()
            val count = frames.consumeAsFlow().predictLatest(session) { Request.budgetMs(60_000.0) }.toList().size
            check(count in 1..99) { count }
        }
    }
    Prepared.session("images.paraedge", 2).use { session: Session ->
        // Real images: the bits of Python's outputs.
        val images = Prepared.bytes("images.u8")
        val outputs = Prepared.floats("outputs.f32")
        runBlocking {
            repeat(1024) {
                val found = session.predict(Prepared.direct(images, it * 784, 784)).output()
                check(found.contentEquals(outputs.copyOfRange(it * 10, (it + 1) * 10))) { it }
            }
        }
    }
    println("Kotlin: all checks passed")
}
