"""The wire: what is said between device and host, in which topics, payloads, chunks and receipts.

All topics lie under `stethopi/1/{fleet}/{device}/`:

| topic | payload | from | QoS |
|---|---|---|---|
| `state` (retained; also the last will) | `State` | device | 1 |
| `exam/{id}/result` | `Exam` | device | 1 |
| `exam/{id}/sound/{site}/{n}` | bare bytes of chunk n of that site's FLAC file | device | 1 |
| `exam/{id}/sound/{site}.ecg/{n}` | the same of the ECG that was heard beside it | device | 1 |
| `receipt` | `Receipt` | host | 1 |
| `live/wave`, `live/quality` | `LiveWave`, `LiveQuality` | device | 0 |
| `live/ecg` | `LiveEcg` | device | 0 |
| `live/window`, `live/exam` | `LiveWindow`, `LiveExam` | device | 0 |
| `health` | `Health` | device | 0 |
| `command` | `Command` | host | 1 |
| `answer` | `Answer` | device | 1 |

Delivery of one exam. The *hash of an exam* is the sha256 of the bytes of its `result` payload; these never
change once the exam is in the outbox, and they name the sha256 of every sound file, so the hash stands for
all of it.

1. The device publishes `result`, then every chunk of every site in order.
2. The host stores; when result and all sounds are there and every sha256 fits, and not before, it
   publishes a `Receipt` with status `stored` and the hash. A broker's PUBACK proves nothing.
3. No receipt after a while (the device backs off, 2 s to 5 min): the device publishes `result` again. To a
   result that it knows already the host answers at once: `stored`, or `missing` with a bitmap of the chunks
   it lacks for each site; the device sends just those. To a result that is new the host answers nothing but
   keeps what comes, except that it may answer `missing` at once when it already holds some of its chunks.
4. A sound whose chunks are all there but whose sha256 does not fit is thrown away and answered `missing`.
5. `refused` with a reason says that the host will never take it (unreadable, another exam under the same
   id): the device keeps the exam, marks it and does not try again by itself.

Whatever comes from the network goes through `parse_topic`, `read` and `check_chunk`, which raise
`BadMessage`; ids and file names are path-safe after that. The JSON Schemas in deploy/schemas are printed
by this room:

    python -I -m device.contract.schemas deploy/schemas        write them
"""
