"""The page of a funnel as a PNG, for docs/serving.md and for eyes after a change of its style.

python -m tests.serve.up.picture runs/funnel/funnel/funnel --output docs/images/page.png
python -m tests.serve.up.picture runs/funnel/funnel/funnel --output phone.png --width 390 --height 1600 --dark
"""

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a funnel's folder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--text", help="words to search by")
    parser.add_argument("--dropped", action="store_true", help="open the last group of what was dropped")
    parser.add_argument("--colours", type=int, default=128, help="of the picture's palette")
    args = parser.parse_args()
    draw(args)
    print(f"wrote {args.output}: {args.output.stat().st_size:,} bytes")


def draw(args: argparse.Namespace) -> None:
    from tests.serve.up.browser import at_port, chromium, look
    from tests.serve.up.conftest import serving, wait_for

    with tempfile.TemporaryDirectory() as profile, serving(args.folder) as app, at_port(app) as url:
        app.state.house.serving.warm()
        with chromium(profile) as driver:
            look(driver, width=args.width, height=args.height, dark=args.dark)
            driver.get(url)
            wait_for(lambda: shown(driver), seconds=300)
            if args.text:
                before = driver.execute_script("return document.querySelector('#link').href")
                driver.find_element("id", "text").send_keys(args.text + "\n")
                wait_for(lambda: driver.execute_script("return document.querySelector('#link').href") != before)
                wait_for(lambda: shown(driver), seconds=300)
            if args.dropped:
                driver.execute_script("[...document.querySelectorAll('#groups details')].at(-1).open = true")
                wait_for(lambda: shown(driver), seconds=300)
            raw = driver.get_screenshot_as_png()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(raw)).convert("RGB").quantize(args.colours).save(args.output, optimize=True)


def shown(driver: Any) -> bool:
    """Whether the answer is there, with those of its pictures that are on the screen."""
    return driver.execute_script(
        "const seen = [...document.images].filter((i) => i.src && i.checkVisibility() && "
        "i.getBoundingClientRect().top < innerHeight);"
        "return !document.body.classList.contains('busy') && document.querySelector('#items .card') !== null && "
        "seen.every((i) => i.complete && i.naturalWidth > 0)"
    )


if __name__ == "__main__":
    main()
