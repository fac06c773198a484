"""How a total of the node is split among its worker processes."""


def share(total: int, *, workers: int, index: int) -> int:
    """The part of worker `index` (from 0) among `workers`; all parts sum to the total.

    What does not divide evenly goes to the lowest indexes, one each, so a part can be 0.
    """
    each, rest = divmod(total, workers)
    return each + (index < rest)
