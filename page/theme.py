"""Colours, type and the options every launch of the page needs."""

import importlib.util
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from page.words import for_gradio, head_script

ASSETS = Path(__file__).parent.parent / "assets" / "page"
SESSIONS = 200
"""Visitors whose photo and talk are kept, at about 2 MB each; the one seen longest ago goes."""
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; media-src 'self' blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
ORANGE = (
    *("#fff4ef", "#ffe4d8", "#ffc7b0", "#ffa17d", "#fb7a4e", "#ef5a2b"),
    *("#d8451a", "#b33514", "#8f2d15", "#742915", "#3f1208"),
)


def theme() -> gr.themes.Base:
    """The page's colours and type; fonts are Gradio's own files, none is fetched."""
    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400,))  # each weight costs 56 KB
    return gr.themes.Base(
        primary_hue=gr.themes.Color(*ORANGE),
        neutral_hue="stone",
        radius_size="lg",
        font=[sans, "ui-sans-serif", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        body_background_fill="#f7f4f0",
        body_background_fill_dark="#141312",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1d1b1a",
        block_border_color="#e7e1da",
        block_border_color_dark="#302d2a",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1d1b1a",
        body_text_color="#2a2622",
        body_text_color_dark="#ece7e1",
        body_text_color_subdued="#6f675f",
        body_text_color_subdued_dark="#a39a90",
    )


def launch_options() -> dict:
    """What every launch of the page needs, the tests' too."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
    return {
        "theme": theme(),
        "css": (ASSETS / "page.css").read_text("utf-8"),
        "head": policy + head_script(),
        "i18n": gr.I18n(**for_gradio()),
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": "15mb",
        "state_session_capacity": SESSIONS,
        "app_kwargs": {"middleware": [Middleware(GZipMiddleware)]},
        "mcp_server": importlib.util.find_spec("mcp") is not None,
    }
