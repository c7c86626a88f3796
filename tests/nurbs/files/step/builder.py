"""Faces of STEP files made by hand."""

from collections.abc import Sequence

from tests.nurbs.file_cases import step

Vector = Sequence[float]


class Builder:
    """Instances, numbered in their order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, text: str) -> int:
        self.lines.append(f"#{len(self.lines) + 1}={text};")
        return len(self.lines)

    def point(self, *x: float) -> int:
        return self.add(f"CARTESIAN_POINT('',({','.join(map(repr, map(float, x)))}))")

    def direction(self, *x: float) -> int:
        return self.add(f"DIRECTION('',({','.join(map(repr, map(float, x)))}))")

    def axes(self, origin: Vector = (0, 0, 0), z: Vector = (0, 0, 1), x: Vector = (1, 0, 0)) -> int:
        names = self.point(*origin), self.direction(*z), self.direction(*x)
        return self.add(f"AXIS2_PLACEMENT_3D('',#{names[0]},#{names[1]},#{names[2]})")

    def vertex(self, *x: float) -> int:
        return self.add(f"VERTEX_POINT('',#{self.point(*x)})")

    def line(self, start: Vector, way: Vector) -> int:
        vector = self.add(f"VECTOR('',#{self.direction(*way)},1.)")
        return self.add(f"LINE('',#{self.point(*start)},#{vector})")

    def circle(self, radius: float, **axes: Vector) -> int:
        return self.add(f"CIRCLE('',#{self.axes(**axes)},{float(radius)!r})")

    def edge(self, start: Vector, end: Vector, curve: int, sense: str = "T") -> int:
        first = self.vertex(*start)
        last = first if start == end else self.vertex(*end)
        return self.add(f"EDGE_CURVE('',#{first},#{last},#{curve},.{sense}.)")

    def segment(self, start: Vector, end: Vector) -> int:
        way = [b - a for a, b in zip(start, end, strict=True)]
        return self.edge(start, end, self.line(start, way))

    def loop(self, *edges: int | tuple[int, str], outer: bool = True, sense: str = "T") -> int:
        """A boundary of edges, each in its direction or, as (edge, "F"), against it."""
        pairs = [edge if isinstance(edge, tuple) else (edge, "T") for edge in edges]
        oriented = [self.add(f"ORIENTED_EDGE('',*,*,#{edge},.{way}.)") for edge, way in pairs]
        loop = self.add(f"EDGE_LOOP('',({','.join(f'#{n}' for n in oriented)}))")
        return self.add(f"FACE_{'OUTER_' * outer}BOUND('',#{loop},.{sense}.)")

    def polygon(self, *corners: Vector, **options) -> int:
        pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
        return self.loop(*(self.segment(a, b) for a, b in pairs), **options)

    def tip(self, *x: float) -> int:
        return self.add(f"FACE_BOUND('',#{self.add(f'VERTEX_LOOP({chr(39) * 2},#{self.vertex(*x)})')},.T.)")

    def face(self, surface: int, *bounds: int, sense: str = "T", name: str = "") -> int:
        return self.add(f"ADVANCED_FACE('{name}',({','.join(f'#{n}' for n in bounds)}),#{surface},.{sense}.)")

    def text(self) -> str:
        return step("\n".join(self.lines))
