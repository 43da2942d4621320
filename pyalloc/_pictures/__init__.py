"""Pictures and the report: heap map, timeline, waste by size class, and one HTML page that puts them together.

    record.py    what PYALLOC_REPORT wrote: the heap of a process at its peak and at exit
    launch.py    a program under the drop-in, watched from outside
    series.py    figures over time, out of an execution trace and samples of RSS
    waste.py     what size classes cost
    palette.py   the colours, for light and dark, and the groups of size classes that they stand for
    raster.py    the heap map as pixels
    plots.py     PNG files, with matplotlib
    svg.py       the same for the HTML page, without
    html.py      the page
    commands.py  map, timeline, classes and report on the command line

Nothing here is loaded before a command asks for it.
"""
