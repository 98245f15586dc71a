package packet

import "gateway/mqtt"

// validCode tells whether a reason code is one that the specification lists for a packet type.
func validCode(t Type, c mqtt.ReasonCode) bool {
	switch t {
	case CONNACK: // table 3-1
		switch c {
		case mqtt.Success, mqtt.TopicNameInvalid, mqtt.PacketTooLarge, mqtt.QuotaExceeded, mqtt.PayloadFormatInvalid, mqtt.RetainNotSupported,
			mqtt.QoSNotSupported, mqtt.UseAnotherServer, mqtt.ServerMoved, mqtt.ConnectionRateExceeded:
			return true
		}
		return c >= mqtt.UnspecifiedError && c <= mqtt.BadAuthenticationMethod && c != mqtt.ServerShuttingDown
	case PUBACK, PUBREC: // tables 3-4, 3-5
		switch c {
		case mqtt.Success, mqtt.NoMatchingSubscribers, mqtt.UnspecifiedError, mqtt.ImplementationError, mqtt.NotAuthorized,
			mqtt.TopicNameInvalid, mqtt.PacketIDInUse, mqtt.QuotaExceeded, mqtt.PayloadFormatInvalid:
			return true
		}
	case PUBREL, PUBCOMP: // tables 3-6, 3-7
		return c == mqtt.Success || c == mqtt.PacketIDNotFound
	case SUBACK: // table 3-8
		switch c {
		case mqtt.Success, mqtt.GrantedQoS1, mqtt.GrantedQoS2, mqtt.UnspecifiedError, mqtt.ImplementationError, mqtt.NotAuthorized,
			mqtt.TopicFilterInvalid, mqtt.PacketIDInUse, mqtt.QuotaExceeded, mqtt.SharedNotSupported, mqtt.SubscriptionIDsNotSup, mqtt.WildcardsNotSupported:
			return true
		}
	case UNSUBACK: // table 3-9
		switch c {
		case mqtt.Success, mqtt.NoSubscriptionExisted, mqtt.UnspecifiedError, mqtt.ImplementationError, mqtt.NotAuthorized,
			mqtt.TopicFilterInvalid, mqtt.PacketIDInUse:
			return true
		}
	case DISCONNECT: // table 3-10
		switch c {
		case mqtt.Success, mqtt.DisconnectWithWill, mqtt.NotAuthorized, mqtt.ServerBusy, mqtt.ServerShuttingDown,
			mqtt.BadAuthenticationMethod, mqtt.KeepAliveTimeout, mqtt.SessionTakenOver, mqtt.TopicFilterInvalid, mqtt.TopicNameInvalid:
			return true
		}
		return c >= mqtt.UnspecifiedError && c <= mqtt.ImplementationError || c >= mqtt.ReceiveMaximumExceeded && c <= mqtt.WildcardsNotSupported
	case AUTH: // table 3-11
		return c == mqtt.Success || c == mqtt.ContinueAuthentication || c == mqtt.ReAuthenticate
	}
	return false
}
