package ai.paraedge

import java.nio.ByteBuffer
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.flow.conflate
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.isActive
import kotlinx.coroutines.withContext

/**
 * Runs an image as [Session.run] does, on a thread of [dispatcher]. Cancelling ends the request as soon as its thread
 * waits for others; a branch that has begun runs to its end. Takes the place of the request's own [Request.cancelled].
 */
suspend fun Session.predict(
    image: ByteBuffer,
    request: Request = Request.DEFAULT,
    dispatcher: CoroutineDispatcher = Dispatchers.Default,
): Prediction = withContext(dispatcher) { runIn(this, image, request) }

/**
 * Every better prediction on the way, the last one last. Whoever stops collecting cancels the request, as in [predict].
 * Takes the place of the request's own [Request.onPrediction] and [Request.cancelled].
 */
fun Session.predictions(image: ByteBuffer, request: Request = Request.DEFAULT): Flow<Prediction> = channelFlow {
    val last = runIn(this, image, request.onPrediction { soFar -> trySend(soFar).isSuccess })
    send(last)
}.buffer(Channel.UNLIMITED).flowOn(Dispatchers.Default)

/** Frames as they come: the newest is predicted, those that came meanwhile are dropped. */
fun Flow<ByteBuffer>.predictLatest(session: Session, request: () -> Request = { Request.DEFAULT }): Flow<Prediction> =
    conflate().map { frame -> session.predict(frame, request()) }

private fun Session.runIn(scope: CoroutineScope, image: ByteBuffer, request: Request): Prediction =
    try {
        run(image, request.cancelled { !scope.isActive })
    } catch (refused: ParaEdgeException) {
        scope.ensureActive() // who was cancelled is told so in coroutines' own words
        throw refused
    }
