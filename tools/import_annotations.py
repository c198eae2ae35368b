"""Write a COCO data set from other programs' annotations: python tools/import_annotations.py <export> <new folder>.

Reads YOLO, Pascal VOC, Label Studio, CVAT and Roboflow exports. The new folder holds annotations/, and train2017/ and
val2017/ with links to the images, which stay where they are; it works as --data-path. See docs/own_data.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from msg_ms.cli import path_argument, run_command_line
from msg_ms.data.annotations.coco_writer import write_data_set
from msg_ms.data.annotations.formats import FORMATS, find_export, read_export
from msg_ms.data.annotations.notes import Notes
from msg_ms.data.annotations.splits import SEED, VAL_SHARE, assign_splits
from msg_ms.data.annotations.voc import DIFFICULT, VocOptions
from msg_ms.data.images.class_files import read_index
from msg_ms.errors import UserError


def main() -> None:
    """Read the export, write the data set, and report everything that was left out or changed."""
    args = parse_arguments()
    check_new(args.output)
    export = find_export(args.source, args.format)
    notes = Notes(export.root)
    labelled = read_export(export, args.images, VocOptions(args.difficult, args.voc_origin), notes)
    found = {shape.label for image in labelled.images for shape in image.shapes}
    names = read_index(args.classes) if args.classes else labelled.names or sorted(found)
    # CVAT's project and other exports may lack a class in their own list.
    names += [] if args.classes else sorted(found.difference(names))
    if len(set(names)) < len(names):
        raise UserError(f"{export.files[0]}: a class has the name of another one: {', '.join(names)}")
    assign_splits(labelled.images, args.val_share, args.seed, notes)
    summary = write_data_set(args.output, labelled.images, names, notes, args.box_masks)
    print(f"{args.source}: {labelled.program}, {len(names)} classes")
    print(*(f"  {line}" for line in (*notes.lines(), *summary)), sep="\n")
    print(f"{args.output} is ready for --data-path and MODEL.NUM_CLASSES {len(names)}")


def parse_arguments() -> argparse.Namespace:
    """Parse and check the command's flags."""
    parser = argparse.ArgumentParser(description="Write a COCO data set from the annotations of other programs.")
    add = parser.add_argument
    add("source", type=path_argument, metavar="EXPORT", help="folder of the export, or its YAML, JSON or XML file")
    add("output", type=path_argument, metavar="FOLDER", help="folder to create")
    add("--format", choices=list(FORMATS), help="default: recognised by the files")
    add("--images", type=path_argument, metavar="FOLDER", help="folder of the images (default: the export's)")
    add(
        "--classes",
        type=path_argument,
        metavar="FILE",
        help="the classes and their order, one per line; others are left out",
    )
    add(
        "--val-share",
        type=float,
        metavar="S",
        help=f"share of the images for validation, if the export has none ({VAL_SHARE})",
    )
    add("--seed", type=int, metavar="N", help=f"seed of that choice ({SEED})")
    add("--box-masks", action="store_true", help="write each box without a mask as a polygon, for detectors with masks")
    add("--difficult", choices=DIFFICULT, default=DIFFICULT[0], help="VOC's difficult objects (default: %(default)s)")
    add("--voc-origin", type=int, choices=[0, 1], help="number of VOC's first pixel (default: by the coordinates)")
    args = parser.parse_args()
    if args.val_share is not None and not 0 < args.val_share < 1:
        raise UserError(f"--val-share {args.val_share:g}: must be between 0 and 1")
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be at least 0")
    return args


def check_new(folder: Path) -> None:
    """Raise UserError if the folder to create exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists; name a new folder")


if __name__ == "__main__":
    run_command_line(main)
