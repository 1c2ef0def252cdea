"""What a nightly job looks like: it works on the day that the tick is for, and not on what the clock says when it runs."""

from datetime import datetime, timedelta


def handle(event, context):
    # A call by hand has no tick: `runlet invoke nightly --data '{"fires_at": "2026-11-22T01:30:00Z"}'`
    day = datetime.fromisoformat(event["fires_at"].replace("Z", "+00:00"))
    keep = (event.get("data") or {}).get("keep_days", 30)
    oldest = (day - timedelta(days=keep)).date().isoformat()
    if event.get("missed"):
        print("the server was away at", event["fires_at"])
    print("what is older than", oldest, "would go now")
    return {"removed_before": oldest, "started_by": context.cause.kind}
