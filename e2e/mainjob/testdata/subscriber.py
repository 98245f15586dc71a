"""A subscriber on paho-mqtt: prints every message as mosquitto_sub -v does.

Usage: subscriber.py PORT CLIENT_ID FILTER
"""
import sys

import paho.mqtt.client as mqtt

port, client_id, topic_filter = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def on_connect(client, _userdata, _flags, rc):
    if rc != 0:
        sys.exit(f"connection refused: {rc}")
    client.subscribe(topic_filter, qos=1)


def on_subscribe(_client, _userdata, _mid, _granted):
    print("received SUBACK", flush=True)


def on_message(_client, _userdata, message):
    print(message.topic, message.payload.decode(), flush=True)


client = mqtt.Client(client_id, clean_session=False)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.reconnect_delay_set(1, 1)
client.connect("127.0.0.1", port)
client.loop_forever()
