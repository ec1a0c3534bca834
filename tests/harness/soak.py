"""Ten subhosts at a time, with all that one can have, booted, entered, put to sleep, and stopped: nothing may go wrong."""
from concurrent.futures import ThreadPoolExecutor

SUBHOSTS = 10


def play(round):
    subhosts = [round.subhost(plain=0) for _ in range(SUBHOSTS)]
    with open(round.ground.list, "w") as file:
        file.writelines(f"{one.conf}\n" for one in subhosts)
    if round.random.random() < 0.3:
        all_at_once(round, subhosts)
        return
    plans = [round.random.choice((live, live, sleep)) for _ in subhosts]
    with ThreadPoolExecutor(SUBHOSTS) as threads:
        list(threads.map(lambda plan, one: plan(round, one), plans, subhosts))


def right(round, *words, typed=b""):
    ended = round.run(*words, typed=typed)
    if not ended.is_done():
        round.fault(f"not right: {round.masked([str(ended)])}")


def all_at_once(round, subhosts):
    right(round, "overlay-boot", "--all")
    for one in subhosts:
        right(round, "overlay-go", one.name, "/.reaper", "go")
    right(round, "overlay-ls")
    right(round, "overlay-stop", "--all")


def live(round, one):
    right(round, "overlay-boot", one.conf)
    right(round, "overlay-go", one.name, "/.reaper", "go")
    right(round, "overlay-share", f"{one.base}/shared:/other", one.name)
    right(round, "overlay-ls")
    right(round, "overlay-stop", one.conf)


def sleep(round, one):
    for _ in range(2):
        right(round, "overlay-boot", "--shell", one.conf, typed=b"exit\n")
    right(round, "overlay-boot", one.conf)
    right(round, "overlay-go", one.name, "/.reaper", "go")
    right(round, "overlay-stop", one.name)
