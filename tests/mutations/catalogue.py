"""The protections that promises stand on, each with a change that takes it out and the tests that must then fail.

A change is a text of one source file and what replaces it. The text has to occur once (`tests/unit/test_mutations.py`
holds that), so code that moves takes its entry along. Tests are found by their names alone, wherever they stand.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One protection taken out."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """Names of test functions. At least one of them has to fail."""


MUTATIONS = (
    Mutation(
        "silent workers are not suspected",
        "streams/state_index.py",
        "                    found.append((partition, worker))\n",
        "",
        ("test_a_silent_worker_loses_its_task_to_the_next_attempt",),
    ),
    Mutation(
        "a late outcome of an old attempt counts",
        "streams/state_machine/tasks.py",
        """outcome is None or event["attempt"] != row["attempt"] or row["not_before_ms"] is not None:""",
        "outcome is None:",
        ("test_late_outcomes_of_old_attempts_are_dropped",),
    ),
    Mutation(
        "a task goes on after its third lost worker",
        "streams/state_machine/tasks.py",
        "    if lost and count >= rules.max_lost_workers:\n",
        "    if lost and count > 1_000:\n",
        ("test_three_lost_workers_make_a_dead_letter",),
    ),
    Mutation(
        "nothing is retried",
        "streams/state_machine/tasks.py",
        """        if row["attempt"] < rules.max_attempts and now_ms""",
        """        if row["attempt"] < 0 and now_ms""",
        ("test_a_retriable_failure_comes_back_with_its_body",),
    ),
    Mutation(
        "a stream is retried after its first token",
        "streams/state_machine/tasks.py",
        """ and outcome["chunks"] == 0 and not row["streamed"]:""",
        ":",
        ("test_a_failure_that_cannot_be_tried_again_is_the_end",),
    ),
    Mutation(
        "Retry-After is ignored",
        "streams/state_machine/tasks.py",
        """outcome["retry_after_ms"] or 0)""",
        "0)",
        ("test_retry_after_is_honoured",),
    ),
    Mutation(
        "a restart forgets the retries that wait",
        "streams/recovery/scan.py",
        """        return STATUS.decode(value)
""",
        """        row = STATUS.decode(value)
        return None if rebuild and row["not_before_ms"] is not None else row
""",
        ("test_a_retry_that_waits_outlives_the_scheduler",),
    ),
    Mutation(
        "deadlines end nothing",
        "streams/state_machine/tasks.py",
        """    if now_ms < next_deadline_ms(row):
        return None
""",
        """    if now_ms:
        return None
""",
        ("test_a_deadline_expires_a_task_without_a_worker",),
    ),
    Mutation(
        "results never expire",
        "streams/state_machine/tasks.py",
        """    if row["expires_ms"] is None or now_ms < row["expires_ms"]:""",
        """    if row["expires_ms"] is None or now_ms:""",
        ("test_each_task_has_its_own_retention",),
    ),
    Mutation(
        "a cancelled call goes on",
        "dispatcher/inference/runner.py",
        """        if item.task is not None:
            item.task.cancel()
""",
        "",
        ("test_a_cancel_closes_the_connection_at_once",),
    ),
    Mutation(
        "what was cancelled while it waited is begun",
        "dispatcher/inference/runner.py",
        """        elif self._is_cancelled(item.work["id"]):""",
        """        elif self._is_cancelled(""):""",
        ("test_a_cancel_from_before_the_start_is_known",),
    ),
    Mutation(
        "a client that leaves cancels nothing",
        "ingress/submission/service.py",
        "        if ended is WaitOutcome.GONE and not counts.keyed:",
        "        if ended is WaitOutcome.GONE and counts is None:",
        ("test_a_client_that_goes_away_cancels",),
    ),
    Mutation(
        "every duplicate under one Idempotency-Key runs",
        "streams/intake/deduplication.py",
        """reservation["duplicate_of"] == task_id:""",
        """reservation["duplicate_of"] != "":""",
        ("test_a_thousand_duplicates_over_three_ingresses_are_one_task",),
    ),
    Mutation(
        "poison makes no dead letter",
        "streams/scheduler.py",
        """            transaction.add(dead_letter(self._settings, message, reason=one.reason, field=one.field))
            transaction.reasons["poison"] += 1
""",
        """            transaction.reasons["poison"] += 1
""",
        ("test_undecodable_records_become_dead_letters_and_their_neighbours_are_processed",),
    ),
    Mutation(
        "a failed producer is not rebuilt",
        "core/kafka/producer.py",
        """        self._rebuilding = asyncio.create_task(self._rebuild(producer), name=f"rebuild-{self._name}")
""",
        "",
        ("test_a_broker_that_hangs_and_one_that_dies",),
    ),
    Mutation(
        "a broken connection raises what aiokafka does not expect",
        "core/kafka/aiokafka_patches.py",
        "    except RuntimeError as error:\n",
        "    except ZeroDivisionError as error:\n",
        ("test_a_break_is_an_error_of_kafka",),
    ),
    Mutation(
        "partitions without a commit are not read again after the recovery",
        "streams/faust/consumer.py",
        "    consumer.perform_seek = seek_all\n",
        "",
        ("test_partitions_without_a_commit_are_set_to_their_first_record",),
    ),
    Mutation(
        "a scheduler without a confirmed heartbeat writes",
        "streams/scheduler.py",
        "        await self._await_group_heartbeat()\n",
        "",
        ("test_a_member_without_a_confirmed_heartbeat_writes_nothing",),
    ),
    Mutation(
        "a stopping dispatcher gives nothing back",
        "dispatcher/inference/service.py",
        """        self._runner.return_items()
""",
        "",
        ("test_a_stop_finishes_what_it_can_and_gives_the_rest_back",),
    ),
    Mutation(
        "offsets are committed over work that nobody has claimed",
        "dispatcher/offset_tracker.py",
        "        point = next(iter(self._open), self._next)\n",
        "        point = self._next\n",
        ("test_the_commit_is_always_below_everything_unsafe",),
    ),
    Mutation(
        "a result that a crash left without its row is written again",
        "streams/transaction.py",
        "        if known := self._known_results.get(key):\n",
        """        if known := self._known_results.get((-1, "")):\n""",
        ("test_a_result_without_its_row_is_adopted_and_not_written_again",),
    ),
    Mutation(
        "an attempt that a worker has claimed or finished is run again",
        "dispatcher/inference/runner.py",
        """ or self._was_attempted(item.key)""",
        "",
        ("test_what_was_done_is_not_done_again",),
    ),
    Mutation(
        "rows are written before the outputs that they tell of",
        "streams/commit.py",
        """            await self._write_outputs(transaction)
            await self._write_batches(transaction, now_ms)
            await self._write_rows(transaction, now_ms)
""",
        """            await self._write_rows(transaction, now_ms)
            await self._write_batches(transaction, now_ms)
            await self._write_outputs(transaction)
""",
        ("test_a_task_goes_through_and_its_row_points_to_its_result",),
    ),
    Mutation(
        "a login page ends a callback",
        "dispatcher/webhooks/http_client.py",
        "Disposition.RETRY, reason, kind, health, ",
        "Disposition.RETRY if status >= 500 else Disposition.REFUSED, reason, kind, health, ",
        ("test_a_receiver_behind_a_login_page_for_an_hour_loses_nothing",),
    ),
    Mutation(
        "a model server that answers is blamed",
        "ingress/http/readiness.py",
        "        if all(troubles.values()):\n",
        "        if troubles:\n",
        ("test_a_server_that_answers_is_not_blamed",),
    ),
    Mutation(
        "a value in a file and one beside it are taken in silence",
        "core/settings/environment.py",
        "    if path and value:\n",
        "    if False:\n",
        ("test_a_file_and_a_value_are_one_too_many",),
    ),
    Mutation(
        "an error with status 200 is stored as an answer",
        "dispatcher/inference/response_check.py",
        """    if b'"error"' in body:\n""",
        "    if False:\n",
        ("test_errors_and_nothing_are_no_success",),
    ),
    Mutation(
        "an error in the frames of a stream is passed on as text",
        "dispatcher/inference/stream_relay.py",
        "            if (error := reported_in_frame(frame)) is not None:\n",
        "            if (error := reported_in_frame(b'')) is not None:\n",
        ("test_an_error_in_place_of_the_text_is_not_delivered",),
    ),
    Mutation(
        "an end mark alone is an answer",
        "dispatcher/inference/stream_relay.py",
        "        if not self._writer.frames:\n            raise CallError(Failure.EMPTY)\n",
        "",
        ("test_an_end_mark_alone_is_no_answer",),
    ),
    Mutation(
        "bytes of an answer are replaced by text",
        "core/embedding.py",
        "    return {name: b64encode(body).decode(), ",
        "    return {name: body.decode(errors='replace'), ",
        ("test_no_byte_is_lost", "test_bytes_are_base64_with_their_media_type"),
    ),
    Mutation(
        "addresses of model servers are told to users",
        "core/upstream_errors.py",
        "    text = _HOST.sub(HIDDEN, _URL.sub(_url, text))\n",
        "",
        ("test_addresses_of_machines_are_hidden",),
    ),
    Mutation(
        "one broken record ends whoever reads it",
        "core/kafka/unpacking.py",
        "            yield from self._one_by_one(plain, head, last)\n            return\n",
        "            raise\n",
        ("test_a_header_name_that_is_not_utf_8_costs_its_record_alone",),
    ),
    Mutation(
        "Faust assigns every partition that a topic has",
        "streams/faust/app.py",
        "            PartitionAssignor=UsedPartitionsAssignor,\n",
        "",
        ("test_topics_that_were_extended_change_nothing",),
    ),
    Mutation(
        "a local table outlives its changelog",
        "streams/faust/topic_changes.py",
        "        if offset is None or offset < (end or 0):\n",
        "        if True:\n",
        ("test_schedulers_start_after_their_tables_were_re_created",),
    ),
    Mutation(
        "a follower waits for the old end of a topic that was re-created",
        "core/kafka/topic_follower.py",
        "                self._targets.pop(tp, None)\n",
        "",
        ("test_a_topic_that_was_re_created_needs_not_grow_to_its_old_end",),
    ),
    Mutation(
        "metadata of a missing topic is requested without a pause",
        "core/kafka/aiokafka_patches.py",
        "    if cluster is self.cluster and absent.intersection(topics or ()):\n",
        "    if False:\n",
        ("test_a_topic_that_does_not_exist_is_not_asked_for_in_a_loop",),
    ),
    Mutation(
        "a record at the offset of a task is taken for the task",
        "core/kafka/task_records.py",
        "        return task if _id_of(found, task) == task_id else None\n",
        "        return task\n",
        ("test_a_record_whose_place_is_its_name", "test_a_record_that_names_its_task"),
    ),
)
