"""The page of the chat, made with Gradio: one image, one panel for each model, one answer at a time."""

from __future__ import annotations

import html
import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI
from PIL import Image

from exgra_adapter.atomic import write_bytes
from exgra_adapter.chat.conversation import MOST_QUESTION_CHARACTERS
from exgra_adapter.chat.session import Messages, Session
from exgra_adapter.chat.speaker import Speaker
from exgra_adapter.demo.phantoms import draw_phantom
from exgra_adapter.demo.scenes import Scene, Topic, ask

TITLE = "ExGra-Med chat"
NOTICE = "For research, not for clinical use. Answers may be wrong, also where they sound certain."
MOST_WAITING = 16
UPLOADS = "uploads"
_NO_UPLOAD = "chat: image must be an upload or an example; got {}. Upload the image."
_MOST_SESSIONS = 64
# Seconds: how often uploads are looked through, and how old those are that go.
_CLEANING = (600, 3600)
_EXAMPLES: tuple[tuple[Scene, Topic], ...] = (
    (Scene("CT", "liver", 2, "left", "large"), "organ"),
    (Scene("MRI", "brain", 1, "right", "large"), "presence"),
    (Scene("X-ray", "lungs", 0), "modality"),
    (Scene("ultrasound", "kidney", 1, "left", "large"), "side"),
)
_STYLE = """
.gradio-container > main { max-width: 1280px !important; margin: auto; }
#notice { border: 1px solid #b45309; border-left-width: 6px; border-radius: 8px; padding: 8px 14px;
  background: #fef3c7; color: #451a03; font-weight: 600; }
.dark #notice { background: #422006; color: #fde68a; border-color: #d97706; }
#heading { padding: 0; }
#heading h1 { font-size: 1.5rem; font-weight: 700; margin: 0 0 8px; }
#status { min-height: 1.6em; padding: 0; overflow-wrap: anywhere; }
#send, #stop, #new { white-space: nowrap; padding-inline: 6px; }
#examples button :is(div, img) { width: 68px !important; height: 68px !important; }
@media (max-width: 640px) { [id^=panel-] { height: 260px !important; } }
#status .error { color: #b91c1c; font-weight: 600; }
.dark #status .error { color: #fca5a5; }
#picture .image-frame img { width: 100%; height: 100%; object-fit: contain; }
footer { display: none !important; }
"""


def make_page(speakers: Sequence[Speaker], folder: Path, most_bytes: int, image: Path | None = None) -> FastAPI:
    """Makes the application that serves the page at its root.

    Args:
        speakers: One or two models.
        folder: Where examples are drawn, and uploads lie in `UPLOADS`: the folder that GRADIO_TEMP_DIR names.
        most_bytes: Largest upload.
        image: Shown at the beginning.
    """
    given = None
    if image is not None:  # A copy: what lies beside the image is not for the page.
        given = folder / "given" / image.name
        write_bytes(given, image.read_bytes())
    blocks = _Page(speakers, draw_examples(folder / "examples"), given, folder / UPLOADS).blocks
    # Mounted pages are not "launched", and only for those does Gradio refuse requests that name files that were not
    # uploaded: it would copy any file of the machine into the folder of uploads.
    blocks.has_launched = True
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name="127.0.0.1",
        max_file_size=most_bytes,
        show_error=False,
        allowed_paths=[str(folder / "examples"), str(folder / "given")],
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        theme=_theme(),
        css=_STYLE,
        footer_links=[],
    )


def draw_examples(folder: Path) -> list[tuple[str, str]]:
    """Draws images for the page, always the same ones.

    Returns:
        For each its path and a question about it.

    Example:
        >>> import tempfile
        >>> examples = draw_examples(Path(tempfile.mkdtemp()))
        >>> Path(examples[0][0]).name, examples[0][1]
        ('CT-liver.png', 'Which organ is shown?')
    """
    examples = []
    for number, (scene, topic) in enumerate(_EXAMPLES):
        content = io.BytesIO()
        Image.fromarray(draw_phantom(scene, np.random.default_rng(number))).save(content, "PNG")
        path = folder / f"{scene.modality}-{scene.organ}.png"
        write_bytes(path, content.getvalue())
        examples.append((str(path), ask(scene, topic).turn.question))
    return examples


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Returns the names of folders, with as much of their paths as tells them apart.

    Example:
        >>> distinct_names([Path("runs/with/vqa"), Path("runs/without/vqa")])
        ['with/vqa', 'without/vqa']
        >>> distinct_names([Path("runs/vqa"), Path("runs/vqa")])
        ['vqa', 'vqa']
    """
    paths = [folder.resolve().parts for folder in folders]
    lengths = range(1, max(map(len, paths)) + 1) if len(set(paths)) == len(paths) else (1,)
    named = (["/".join(parts[-length:]) for parts in paths] for length in lengths)
    return next(names for names in named if len(set(names)) == len(set(paths)))


def _theme() -> Any:
    # Names of fonts that systems have: Gradio's own come from a server.
    plain = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
    return gr.themes.Default(primary_hue="indigo", font=plain, font_mono=("ui-monospace", "monospace"))


class _Blocks(gr.Blocks):
    """Components that take files from readers only: Gradio fetches those that a request names by an address."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> Any:
        """Makes what handlers get of what a request holds."""
        if _names_address(inputs):
            raise gr.Error(_NO_UPLOAD.format("an address"), print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *arguments, **options)


def _names_address(value: Any) -> bool:
    """Whether a JSON value holds a file that lies on another server."""
    if isinstance(value, dict):
        return str(value.get("path")).startswith(("http://", "https://")) or any(map(_names_address, value.values()))
    return isinstance(value, list) and any(map(_names_address, value))


class _Page:
    """The components of the page and what they do; every open page has a session of its own."""

    def __init__(
        self, speakers: Sequence[Speaker], drawn: Sequence[tuple[str, str]], image: Path | None, uploads: Path
    ) -> None:
        self._uploads = uploads.resolve()
        self._speakers = tuple(speakers)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        names = distinct_names([speaker.folder for speaker in self._speakers])
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        with _Blocks(title=TITLE, analytics_enabled=False, delete_cache=_CLEANING, fill_width=True) as self.blocks:
            gr.HTML(f"<h1>{TITLE}</h1><p id='notice' role='note'>{NOTICE}</p>", elem_id="heading")
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    picture = gr.Image(
                        value=None if image is None else str(image),
                        type="filepath",
                        image_mode=None,
                        sources=["upload", "clipboard"],
                        label="Image",
                        height=300,
                        buttons=["fullscreen"],
                        elem_id="picture",
                    )
                    examples = gr.Dataset(
                        components=[picture],
                        samples=[[path] for path, _ in drawn],
                        type="index",
                        layout="gallery",
                        label="Examples, drawn by this project",
                        elem_id="examples",
                    )
                with gr.Column(scale=5, min_width=320):
                    with gr.Row():
                        panels = [
                            gr.Chatbot(
                                label=f"{name} ({speaker.device})",
                                height=380,
                                render_markdown=False,
                                buttons=["copy_all"],
                                group_consecutive_messages=False,
                                elem_id=f"panel-{place}",
                                placeholder="Show an image, then ask about it.",
                            )
                            for place, (name, speaker) in enumerate(zip(names, self._speakers, strict=True))
                        ]
                    question = gr.Textbox(
                        label="Question",
                        placeholder="Which organ is shown?",
                        max_length=MOST_QUESTION_CHARACTERS,
                        lines=1,
                        elem_id="question",
                    )
                    with gr.Row():
                        send = gr.Button("Send", variant="primary", min_width=80, elem_id="send")
                        stop = gr.Button("Stop", min_width=80, elem_id="stop")
                        new = gr.Button("New chat", min_width=80, elem_id="new")
                    status = gr.HTML(_said(""), elem_id="status")
            shown = [picture, status, *panels]
            # Unopened: broken and over-large files are refused by the reader of all images, in a sentence.
            gr.on([picture.change, self.blocks.load], self._show, [picture], shown, preprocess=False, **private)
            examples.click(lambda place: list(drawn[place]), [examples], [picture, question], queue=False, **private)
            gr.on(
                [send.click, question.submit],
                self._ask,
                [question],
                [question, status, *panels],
                concurrency_limit=1,
                concurrency_id="answer",
                trigger_mode="once",
                **private,
            )
            stop.click(self._stop, queue=False, **private)
            begun = [new.click, *(panel.clear for panel in panels)]
            gr.on(begun, self._reset, outputs=[status, *panels], queue=False, **private)
            self.blocks.unload(self._forget)
            self.blocks.queue(max_size=MOST_WAITING)

    def _session(self, request: gr.Request) -> Session:
        key = str(request.session_hash)
        with self._lock:
            session = self._sessions.pop(key, None) or Session(self._speakers)
            self._sessions[key] = session  # the last one used is the last one in the table
            while len(self._sessions) > _MOST_SESSIONS:
                self._sessions.pop(next(iter(self._sessions))).stop()
            return session

    def _forget(self, request: gr.Request) -> None:
        """Ends what a page that was closed has asked."""
        with self._lock:
            session = self._sessions.pop(str(request.session_hash), None)
        if session is not None:
            session.stop()

    def _show(self, upload: Any, request: gr.Request) -> Any:
        session = self._session(request)
        nothing: list[Messages] = [[] for _ in self._speakers]
        if upload is None:
            # Also where an image was refused just now: the reason stays.
            if not session.has_image:
                return [gr.skip()] * (2 + len(nothing))
            session.clear()
            return [gr.skip(), _said(""), *nothing]
        try:
            path, name = self._file_of(upload)
            return [gr.skip(), _said(session.show(path, name)), *nothing]
        except ValueError as error:
            return [None, _failed(error), *nothing]

    def _file_of(self, upload: Any) -> tuple[Path, str]:
        """The file of an upload, and what its owner calls it."""
        values = upload if isinstance(upload, dict) else {}
        path = Path(str(values.get("path") or "")).resolve()
        # A request may name any file of the machine.
        if self._uploads not in path.parents:
            raise ValueError(_NO_UPLOAD.format("something else"))
        return path, str(values.get("orig_name") or path.name)

    def _ask(self, question: str, request: gr.Request) -> Iterator[Any]:
        session = self._session(request)
        text: Any = ""  # The box is emptied once: what is typed meanwhile stays.
        try:
            for progress in session.ask(question):
                yield [text, _said(progress.notice), *progress.messages]
                text = gr.skip()
        except ValueError as error:
            yield [gr.skip(), _failed(error), *session.messages()]

    def _stop(self, request: gr.Request) -> None:
        self._session(request).stop()

    def _reset(self, request: gr.Request) -> Any:
        session = self._session(request)
        session.reset()
        return [_said("Begun anew with the same image." if session.has_image else ""), *session.messages()]


def _said(text: str) -> str:
    return f"<span role='status'>{html.escape(text)}</span>"


def _failed(error: Exception) -> str:
    return f"<span class='error' role='alert'>{html.escape(str(error))}</span>"
