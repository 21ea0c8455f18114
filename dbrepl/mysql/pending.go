package mysql

import "sync"

// pending counts work that goes on in the background. Unlike a WaitGroup it may
// be waited for while work is being added.
type pending struct {
	mu   sync.Mutex
	n    int
	done chan struct{} // closed when n falls to 0
}

func (p *pending) start(work func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		p.done = make(chan struct{})
	}
	p.n++
	go func() {
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.n--; p.n == 0 {
				close(p.done)
			}
		}()
		work()
	}()
}

// wait returns when all work that was started before is done.
func (p *pending) wait() {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done != nil {
		<-done
	}
}
