"""Makes an image smaller: reads a file from standard input, and writes it as PNG or JPEG, whichever has fewer bytes. A JPEG
stays a JPEG.

    image.py <longest side> <pixels> <bytes>

The input may be hostile, so this is a separate process with limits. Exit status: 3 without Pillow, 4 if the image cannot be
decoded, 5 if decoding needs too much memory or the result has too many bytes at every quality.
"""

import io
import math
import resource
import sys

# Address space in bytes: 100 million pixels of four bytes, a copy of them, and Python itself.
MEMORY_BYTES = 1024 * 1024 * 1024
# The limit of processor time.
SECONDS = 20
# JPEG qualities, tried in order until the result is small enough.
QUALITIES = (88, 70, 40)
# With this level a PNG has a fifth more bytes than with the highest one, but takes a quarter of the time.
COMPRESSION = 6

ORIENTATION = 0x0112


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        # If memory runs out, Linux ends this process first.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def scale_down(image, side, pixels):
    width, height = image.size
    share = min(1, math.sqrt(pixels / (width * height)), side / max(width, height))
    size = tuple(max(1, math.floor(length * share + 1e-9)) for length in image.size)
    orientation = image.getexif().get(ORIENTATION)
    # Decodes JPEG at a fraction of its size if that is enough.
    image.draft(None, size)
    if image.mode.startswith("I"):
        # Grey images with 16 bits: convert() would clip them at 255.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    elif image.mode in ("1", "F"):
        image = image.convert("L")
    elif "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode != "L":
        image = image.convert("RGB")
    # BOX averages the area of a pixel. Other filters add colours to a plot, which make its PNG larger.
    image = image.resize(size, Image.BOX)
    if image.mode == "RGBA":
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        image = paper
    return turn(image, orientation)


def turn(image, orientation):
    """Applies the camera's orientation (TIFF 6.0, tag 274)."""
    how = {
        2: Image.FLIP_LEFT_RIGHT,
        3: Image.ROTATE_180,
        4: Image.FLIP_TOP_BOTTOM,
        5: Image.TRANSPOSE,
        6: Image.ROTATE_270,
        7: Image.TRANSVERSE,
        8: Image.ROTATE_90,
    }.get(orientation)
    return image if how is None else image.transpose(how)


def encode(image, most, is_lossless):
    """Returns the smaller of PNG and JPEG; None if both have too many bytes.

    Only a lossless image can become a PNG. Most plots are smaller as PNG, and blurred as JPEG.
    """
    found = []
    if is_lossless:
        found.append(save(image, format="PNG", compress_level=COMPRESSION))
    for quality in QUALITIES:
        found.append(save(image, format="JPEG", quality=quality))
        if len(found[-1]) <= most:
            break
    smallest = min(found, key=len)
    return smallest if len(smallest) <= most else None


def save(image, **form):
    file = io.BytesIO()
    image.save(file, **form)
    return file.getvalue()


def main(side, pixels, most):
    # Pillow's own limit is not needed: the caller has checked the size, and memory and time are limited.
    Image.MAX_IMAGE_PIXELS = None
    image = Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=("PNG", "JPEG", "GIF", "WEBP"))
    is_lossless = image.format != "JPEG"
    result = encode(scale_down(image, side, pixels), most, is_lossless)
    if result is None:
        sys.exit(5)
    sys.stdout.buffer.write(result)
    sys.stdout.buffer.flush()


limit()
try:
    from PIL import Image
except MemoryError:
    sys.exit(5)
except Exception:
    sys.exit(3)
try:
    from PIL import WebPImagePlugin  # noqa: F401 - else Pillow loads the plugins of all formats to find it
except Exception:
    pass
try:
    main(*map(int, sys.argv[1:]))
except MemoryError:
    sys.exit(5)
except Exception:
    sys.exit(4)
