"""Draws characters that the chosen font lacks with other fonts of the machine. Without this, matplotlib and Pillow draw boxes."""

import functools
import subprocess

# A character each of Chinese, Japanese, Korean, Hindi and emoji.
SAMPLES = "中あ한ह🚀"
# Neither library draws the bitmaps of coloured fonts at every size.
PATTERN = "sans:scalable=true:color=false"
TIMEOUT_SECONDS = 20
# No font has a glyph for this character.
MISSING = "\U0010fffd"


@functools.lru_cache(maxsize=None)
def fallbacks():
    """The paths of fonts with these characters, as fontconfig prefers them; empty without fontconfig."""
    command = ["fc-match", "--sort", "--format", "%{file}|%{charset}\n", PATTERN]
    try:
        listing = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    fonts = [line.split("|") for line in listing.decode("utf-8", "replace").splitlines() if line.count("|") == 1]
    found = (next((path for path, ranges in fonts if _contains(ranges, ord(sample))), None) for sample in SAMPLES)
    return [path for path in dict.fromkeys(found) if path is not None]


def _contains(ranges, code):
    """@param ranges fontconfig's text of a set of characters, such as `20-7e a0`"""
    ends = (part.partition("-") for part in ranges.split())
    return any(int(first, 16) <= code <= int(last or first, 16) for first, _, last in ends)


def matplotlib(module):
    """@param module matplotlib.font_manager"""
    real = module.FontManager._find_fonts_by_props

    @functools.wraps(real)
    def find(manager, prop, fontext="ttf", *arguments, **options):
        found = real(manager, prop, fontext, *arguments, **options)
        return found if fontext != "ttf" else [*found, *(path for path in fallbacks() if path not in found)]

    module.FontManager._find_fonts_by_props = find


def pillow(module):
    """Pillow draws a text with one font: the chosen one, unless another has more of the text's characters. @param module PIL.ImageFont"""
    mask_of = module.FreeTypeFont.getmask2

    def look(font, character):
        mask = mask_of(font, character)[0]
        return mask.size, mask.getbbox(), mask.histogram()

    def count(font, characters):
        if not isinstance(font, module.FreeTypeFont):
            # Pillow's bitmap font has only these characters.
            return sum(ord(character) < 256 for character in characters)
        missing = look(font, MISSING)
        return sum(look(font, character) != missing for character in characters)

    def choose(font, text):
        if not isinstance(text, str) or all(ord(character) < 256 for character in text):
            return font
        others = [module.truetype(path, getattr(font, "size", 10)) for path in fallbacks()]
        return max([font, *others], key=lambda one: count(one, set(text)))

    def patch(kind, name):
        real = getattr(kind, name)

        @functools.wraps(real)
        def draw(font, text, *arguments, **options):
            chosen = choose(font, text)
            if chosen is font:
                return real(font, text, *arguments, **options)
            return getattr(chosen, name)(text, *arguments, **options)

        setattr(kind, name, draw)

    for name in ("getbbox", "getlength"):
        patch(module.FreeTypeFont, name)
        patch(module.ImageFont, name)
    # FreeTypeFont.getmask calls getmask2.
    patch(module.FreeTypeFont, "getmask2")
    patch(module.ImageFont, "getmask")
