"""Writes small data sets in robots' formats, from what their documentation says and without our readers.

At step t of episode e the state is (e, t), the action (t, -e, 0.5), and the picture is one grey for its upper
half, `grey(e, t)`, and white below.
"""

import io
import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from PIL import Image

FPS = 10
SIZE = (48, 64)


def grey(episode, step):
    return 20 + (60 * episode + 8 * step) % 230


def picture(episode, step):
    shown = np.full((*SIZE, 3), 255, np.uint8)
    shown[: SIZE[0] // 2] = grey(episode, step)
    return shown


def film(path, frames, *, codec="libx264", fps=FPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.asarray(frames)
    height, width = frames.shape[1:3]
    options = {"libaom-av1": "-cpu-used 8 -crf 20 -b:v 0", "libx264": "-crf 12 -bf 2", "mpeg4": "-q:v 2"}[
        codec
    ]
    command = (
        f"-y -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i - -g 2 -c:v {codec}"
    )
    words = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        *command.split(),
        *options.split(),
        "-pix_fmt",
        "yuv420p",
        str(path),
    ]
    subprocess.run(words, input=frames.tobytes(), check=True)


def png(shown):
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG")
    return file.getvalue()


class LeRobotWriter:
    """A data set in memory, to be changed by a test before it is written.

    `columns[key][episode]` is an array; `films[camera][episode]` a list of pictures, kept as a film, and
    `stored[camera][episode]` the same kept as PNG.
    """

    def __init__(self, lengths=(4, 3, 5), *, films=("front",), stored=(), marks=True):
        self.lengths = list(lengths)
        count = range(len(lengths))
        self.features = {
            "observation.state": {"dtype": "float32", "shape": [2], "names": ["episode", "step"]},
            "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
        }
        self.columns = {
            "observation.state": [[[e, t] for t in range(n)] for e, n in enumerate(lengths)],
            "action": [[[t, -e, 0.5] for t in range(n)] for e, n in enumerate(lengths)],
        }
        if marks:
            self.add("next.reward", [[float(t) for t in range(n)] for n in lengths], "float32")
            self.add("next.done", [[t == n - 1 for t in range(n)] for n in lengths], "bool")
            self.add(
                "next.success",
                [[e != 1 and t == lengths[e] - 1 for t in range(lengths[e])] for e in count],
                "bool",
            )
        self.times = [[t / FPS for t in range(n)] for n in lengths]
        shown = [[picture(e, t) for t in range(lengths[e])] for e in count]
        self.films = {name: [list(one) for one in shown] for name in films}
        self.stored = {name: [list(one) for one in shown] for name in stored}
        self.tasks = ["push", "pull", "push"] + ["push"] * (len(lengths) - 3)
        self.codec = "libx264"
        self.fps = FPS
        self.info = {}
        self.stats = True

    def add(self, key, values, dtype, shape=(1,)):
        self.features[key] = {"dtype": dtype, "shape": list(shape), "names": None}
        self.columns[key] = values

    def write(self, folder, version):
        self.folder, self.version = folder, version
        (folder / "meta").mkdir(parents=True)
        described = dict(self.features)
        for name in self.films:
            described[f"observation.images.{name}"] = {
                "dtype": "video",
                "shape": [3, *SIZE] if version == "v2.1" else [*SIZE, 3],
                "names": ["channels", "height", "width"]
                if version == "v2.1"
                else ["height", "width", "channels"],
                "info": {"video.codec": self.codec, "video.fps": self.fps, "video.is_depth_map": False},
            }
        for name in self.stored:
            names = ["height", "width", "channels"]
            described[f"observation.images.{name}"] = {"dtype": "image", "shape": [*SIZE, 3], "names": names}
        for key, dtype in (("timestamp", "float32"), *((k, "int64") for k in BOOKS[1:])):
            described[key] = {"dtype": dtype, "shape": [1], "names": None}
        new = version == "v3.0"
        info = {
            "codebase_version": version,
            "robot_type": "so101",
            "total_episodes": len(self.lengths),
            "total_frames": sum(self.lengths),
            "total_tasks": 2,
            "chunks_size": 1000,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.lengths)}"},
            "data_path": V3_DATA if new else V2_DATA,
            "video_path": V3_FILM if new else V2_FILM,
            "features": described,
        } | self.info
        (folder / "meta" / "info.json").write_text(json.dumps(info))
        self._write_new() if new else self._write_old()
        return folder

    def _write_old(self):
        meta, unique = self.folder / "meta", sorted(set(self.tasks))
        lines = [
            {"episode_index": e, "tasks": [self.tasks[e]], "length": n} for e, n in enumerate(self.lengths)
        ]
        (meta / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        lines = [{"task_index": i, "task": task} for i, task in enumerate(unique)]
        (meta / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if self.stats:
            lines = [{"episode_index": e, "stats": self._stats([e])} for e in range(len(self.lengths))]
            (meta / "episodes_stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for e in range(len(self.lengths)):
            self._table([e], self.folder / V2_DATA.format(episode_chunk=0, episode_index=e))
            for name, shown in self.films.items():
                place = {"video_key": f"observation.images.{name}", "episode_chunk": 0, "episode_index": e}
                film(self.folder / V2_FILM.format(**place), shown[e], codec=self.codec, fps=self.fps)

    def _write_new(self):
        """All but the last episode in the first file of each kind, the last in a second."""
        meta, last = self.folder / "meta", len(self.lengths) - 1
        files = [list(range(last)), [last]]
        rows = []
        for number, episodes in enumerate(files):
            place = {"chunk_index": 0, "file_index": number}
            self._table(episodes, self.folder / V3_DATA.format(**place))
            for name, shown in self.films.items():
                path = self.folder / V3_FILM.format(video_key=f"observation.images.{name}", **place)
                film(path, [one for e in episodes for one in shown[e]], codec=self.codec, fps=self.fps)
            start = 0.0
            for e in episodes:
                end = start + self.lengths[e] / self.fps
                row = {"episode_index": e, "tasks": [self.tasks[e]], "length": self.lengths[e]}
                row |= {"data/chunk_index": 0, "data/file_index": number}
                row |= {
                    "dataset_from_index": sum(self.lengths[:e]),
                    "dataset_to_index": sum(self.lengths[: e + 1]),
                }
                for name in self.films:
                    at = f"videos/observation.images.{name}/"
                    row |= {at + "chunk_index": 0, at + "file_index": number}
                    row |= {at + "from_timestamp": start, at + "to_timestamp": end}
                rows.append(row | {"stats/action/min": [0.0], "meta/episodes/chunk_index": 0})
                start = end
        (meta / "episodes" / "chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        unique = sorted(set(self.tasks))
        pq.write_table(pa.table({"task_index": range(len(unique)), "task": unique}), meta / "tasks.parquet")
        if self.stats:
            (meta / "stats.json").write_text(json.dumps(self._stats(range(len(self.lengths)))))

    def _stats(self, episodes):
        found = {}
        for key in [key for key in ("observation.state", "action") if key in self.columns]:
            values = np.concatenate([np.array(self.columns[key][e], dtype=float) for e in episodes])
            found[key] = {"min": np.nanmin(values, 0).tolist(), "max": np.nanmax(values, 0).tolist()}
        return found

    def _table(self, episodes, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds = {"float32": pa.float32(), "bool": pa.bool_(), "int64": pa.int64(), "string": pa.string()}
        columns = {}
        for key, values in self.columns.items():
            described = self.features[key]
            kind = kinds[described["dtype"]]
            kind = kind if described["shape"] == [1] else pa.list_(kind)
            columns[key] = pa.array([one for e in episodes for one in values[e]], kind)
        for name, shown in self.stored.items():
            cells = [{"bytes": png(one), "path": None} for e in episodes for one in shown[e]]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            columns[f"observation.images.{name}"] = pa.array(cells, kind)
        unique = sorted(set(self.tasks))
        columns["timestamp"] = pa.array([t for e in episodes for t in self.times[e]], pa.float32())
        rows = [
            (i, e, sum(self.lengths[:e]) + i, unique.index(self.tasks[e]))
            for e in episodes
            for i in range(self.lengths[e])
        ]
        for key, values in zip(BOOKS[1:], zip(*rows, strict=True), strict=True):
            columns[key] = pa.array(values, pa.int64())
        pq.write_table(pa.table(columns), path)


BOOKS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_FILM = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_FILM = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def zarr_arrays(lengths=(4, 3, 5)):
    """The arrays of a Diffusion Policy data set by name, and its ends; pictures are floats of 0 to 255."""
    steps = [(e, t) for e, n in enumerate(lengths) for t in range(n)]
    arrays = {
        "action": np.array([[t, -e, 0.5] for e, t in steps], np.float32),
        "state": np.array(steps, np.float32),
        "img": np.array([picture(e, t) for e, t in steps], np.float32),
        "keypoint": np.zeros((len(steps), 9, 2), np.float32),
    }
    return arrays, np.cumsum(lengths)


def write_zarr(path, arrays, ends, *, zarr_format=2, attributes=None):
    store = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
    root = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    for group, members in (("data", arrays), ("meta", {"episode_ends": np.asarray(ends)})):
        inside = root.create_group(group)
        for name, values in members.items():
            inside.create_array(name, data=values, chunks=(3, *values.shape[1:]))
    if path.suffix == ".zip":
        store.close()
    return path
