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
    tables.py    tables of the page; style.py: its style sheet
    profile.py   pprof files, for the page
    commands.py  map, timeline and report on the command line; classes.py: classes

Nothing here is loaded before a command asks for it.
"""
