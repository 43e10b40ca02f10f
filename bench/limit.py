"""How far a training step is from what a machine can do at most, by the figures of `cargo bench --bench limits`."""
import collections


def rates_of(limits, threads):
    """The rates of so many threads; none where the machine has fewer processors."""
    return next((rates for rates in limits["rates"] if rates["threads"] == threads), None)


def in_registers(rates, step):
    """Seconds of a step by the rate of multiply-adds in registers, and by what it moves between two caches: no program reaches
    the first."""
    return step["operations"] / rates["fma_per_s"], step["l2_bytes"] / rates["l2_bytes_per_s"]


def by_the_cache(rates, step):
    """Seconds of a step by the rates of the cache, in which alone its operations can be done."""
    return step["products"] / rates["cached_fma_per_s"] + step["updates"] / rates["adam_per_s"]


def in_turns(limits):
    """For each number of threads, the seconds of epochs, and how many times `by_the_cache` they took by the rates of the
    moment before each."""
    step, turns = limits["step"], collections.defaultdict(list)
    for turn in limits.get("turns", []):
        seconds = turn["epoch_seconds"]
        turns[turn["threads"]].append((seconds, seconds / step["steps_per_epoch"] / by_the_cache(turn, step)))
    return turns


def undisturbed(limits):
    """For each number of threads, the seconds of a step by the fastest steps in a row, and how many times `by_the_cache` they
    took by the highest rates: both are of the moments in which others disturbed least."""
    teams = limits.get("undisturbed", {}).get("teams", [])
    return {team["threads"]: (team["seconds"], team["seconds"] / by_the_cache(team, limits["step"])) for team in teams}
