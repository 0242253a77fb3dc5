import threading

from cbtalk.app.newest import Newest


def test_the_newest_wins_and_the_others_are_counted() -> None:
    place: Newest[int] = Newest()
    for number in range(5):
        place.put(number)
    assert (place.take(), place.take(), place.dropped) == (4, None, 4)


def test_what_is_taken_never_goes_back() -> None:
    place: Newest[int] = Newest()
    taken: list[int] = []
    ended = threading.Event()

    def take() -> None:
        while True:
            last = ended.is_set()
            item = place.take()
            if item is not None:
                taken.append(item)
            elif last:
                return

    taker = threading.Thread(target=take)
    taker.start()
    for number in range(5000):
        place.put(number)
    ended.set()
    taker.join()
    assert taken == sorted(set(taken)) and taken[-1] == 4999
    assert len(taken) + place.dropped == 5000
