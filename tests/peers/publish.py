"""Publishes numbers to a broker by the client library of others, each confirmed by the broker: KIND URL QUEUE SUBJECT FROM TO."""

import asyncio
import sys

kind, url, queue, subject, first, last = sys.argv[1:]
numbers = range(int(first), int(last))


async def nats():
    from nats import connect

    client = await connect(url, user="runlet", password="wonder", connect_timeout=5)
    stream = client.jetstream()
    await stream.add_stream(name=queue, subjects=[subject.split(".")[0] + ".>"])
    for number in numbers:
        await stream.publish(subject, str(number).encode(), headers={"Content-Type": "application/json"})
    await client.close()


def rabbitmq():
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    for number in numbers:
        channel.basic_publish("", queue, str(number), properties)
    connection.close()


if kind == "nats":
    asyncio.run(nats())
else:
    rabbitmq()
