"""Class tables and bands of data sets as they were published."""

from mapper.classes import ClassTable, MapClass


def _table(rows: str) -> ClassTable:
    """Classes of lines of value, name and colour."""
    classes = []
    for row in rows.strip().splitlines():
        value, name, color = row.split()
        title = name.replace("-", " ").capitalize()
        classes.append(MapClass(value=int(value), name=name, title=title, color=color))
    return ClassTable(classes=tuple(classes))


RGB = ("highres:red", "highres:green", "highres:blue")
RGBN = (*RGB, "highres:nir")
NRGB = ("highres:nir", *RGB)
BGRN = ("highres:blue", "highres:green", "highres:red", "highres:nir")

UGSET = _table("""
0 other 000000
1 urban-green-space FFFFFF
""")

OPENEARTHMAP = _table("""
1 bareland 800000
2 rangeland 00FF24
3 developed-space 949494
4 road FFFFFF
5 tree 226126
6 water 0045FF
7 agriculture 4BB549
8 building DE1F07
""")
"""0, black, is not labelled."""

FBP = _table("""
1 industrial-area C80000
2 paddy-field 00C800
3 irrigated-field 96FA00
4 dry-cropland 96C896
5 garden-land C800C8
6 arbor-forest 9600FA
7 shrub-forest 9696FA
8 park C896C8
9 natural-meadow FAC800
10 artificial-meadow C8C800
11 river 0000C8
12 urban-residential FA0096
13 lake 0096C8
14 pond 00C8FA
15 fish-pond 96C8FA
16 snow FAFAFA
17 bare-land C8C8C8
18 rural-residential C89696
19 stadium FAC896
20 square 969600
21 road FA9696
22 overpass FA9600
23 railway-station FAC8FA
24 airport C89600
""")
"""0, black, is not labelled."""

LOVEDA = _table("""
1 background FFFFFF
2 building FF0000
3 road FFFF00
4 water 0000FF
5 barren 9F81B7
6 forest 00FF00
7 agriculture FFC380
""")
"""0 is no data."""

DASPM = _table("""
0 green-area 00EE00
1 urban-area CD1414
2 roads FFFF00
3 impervious-surface C4C400
4 water 02028D
""")

DASPM_WITH_OTHERS = _table("""
0 others 00FFFF
1 green-area 00EE00
2 urban-area CD1414
3 roads FFFF00
4 impervious-surface C4C400
5 water 02028D
""")

FBP_TEST = frozenset(
    f"GF2_PMS{sensor}__L1A000{scene}-MSS{sensor}"
    for sensor, scenes in (
        (
            1,
            "1064454 1118839 1344822 1348919 1366278 1366284 1395956 1432972 1670888 1680857 "
            "1680858 1757429 1765574",
        ),
        (
            2,
            "0607677 0607681 0718813 1038935 1038936 1119060 1367840 1378491 1378501 1396036 "
            "1396037 1416129 1471436 1517494 1591676 1787564 1821754",
        ),
    )
    for scene in scenes.split()
)
"""Stems of the 30 images that the data set's own baseline was tested on."""
