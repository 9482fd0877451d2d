// A KafkaJS consumer as it comes, in a group until SIGTERM: node member.js BROKERS GROUP TOPIC
const { Kafka, logLevel } = require('kafkajs')
const [brokers, groupId, topic] = process.argv.slice(2)
const kafka = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.NOTHING })
const consumer = kafka.consumer({ groupId, heartbeatInterval: 500, sessionTimeout: 10000 })
process.on('SIGTERM', () => consumer.disconnect().then(() => process.exit(0)))
consumer.connect()
  .then(() => consumer.subscribe({ topic, fromBeginning: true }))
  .then(() => consumer.run({ eachMessage: async () => {} }))
