"""Events from streams: Kafka, NATS JetStream, MQTT. Open one with `open_stream`."""
