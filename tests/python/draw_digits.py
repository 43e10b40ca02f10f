"""Draws the ten digits of fonts, dark on light, as DIRECTORY/NUMBER-DIGIT.png: NUMBER counts the fonts from 0."""

import sys

from PIL import Image, ImageDraw, ImageFont

directory, *fonts = sys.argv[1:]
SIZE, INK, PAPER = 200, 25, 235

for number, path in enumerate(fonts):
    font = ImageFont.truetype(path, SIZE)
    for digit in "0123456789":
        left, top, right, bottom = font.getbbox(digit)
        image = Image.new("L", (SIZE * 3 // 2, SIZE * 3 // 2), PAPER)
        place = ((image.width - left - right) // 2, (image.height - top - bottom) // 2)
        ImageDraw.Draw(image).text(place, digit, font=font, fill=INK)
        image.save(f"{directory}/{number}-{digit}.png")
