"""Says what was pushed."""


def handle(event, context):
    """`event` is GitHub's JSON, decoded; `context` is everything else that is known about this call."""
    commits = event.get("commits") or []
    head = event.get("head_commit") or {}  # a deleted branch has none

    # What is printed is kept with the execution: `runlet logs <id>`.
    print(f"{event['repository']['full_name']}: {len(commits)} commit(s) to {event['ref']}")
    for commit in commits:
        print(f"  {commit['id'][:12]} {commit['author']['name']}: {commit['message'].splitlines()[0]}")

    # What is returned is the result, as JSON.
    return {
        "repository": event["repository"]["full_name"],
        "ref": event["ref"],
        "commits": len(commits),
        "head": head.get("id"),
        "message": head.get("message"),
        "pusher": event["pusher"]["name"],
        "event": context.cause.headers.get("x-github-event"),  # request headers, in lower case
        "delivery": context.cause.delivery,
        "attempt": context.attempt,
    }
